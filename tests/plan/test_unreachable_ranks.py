"""Ranks whose shards are out of reach: every label fails there, and nothing that needs them is taken for right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from aclcmp.labeling.layout import Layout, Partial, Shard
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.orchestrator.core.plan import GapKind, Plan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.plan.planner import plan_run
from tests.plan.test_planner import index, label

WHY = "its shards lie on host b (10.0.0.2), which has left the cluster"
LOST = dict.fromkeys(range(4, 8), WHY)

Labels = Callable[[int], Sequence[LabelRecord]]


def planned(labels: Labels, lost: dict[int, str] = LOST, world: int = 8) -> Plan:
    return plan_run([index(rank, *labels(rank), world_size=world) for rank in range(world) if rank not in lost], world,
                    lost=lost)  # fmt: skip


def on_every_rank(*labels: LabelRecord) -> Labels:
    return lambda rank: labels


def whole(name: str = "x", seq: int = 0) -> LabelRecord:
    return label(name, "pta", seq, (4, 64))


def part(layout: Layout | None = None) -> LabelRecord:
    return label("x", "acl", 1, (4, 8), layout=layout)


TOLD = Layout((Shard(1),))
CASES: dict[str, Labels] = {
    "golden on rank 0, slices inferred": lambda rank: [*[whole()] * (rank == 0), part()],
    "golden on rank 0, slices told": lambda rank: [*[whole()] * (rank == 0), part(TOLD)],
    "golden everywhere": lambda rank: [whole(), part()],
    "replicas": lambda rank: [whole(), label("x", "acl", 1, (4, 64))],
    "slices on both sides": lambda rank: [label("x", "pta", 0, (4, 8), layout=TOLD), part(TOLD)],
    "some ranks alone": lambda rank: [whole(), label("x", "acl", 1, (4, 16))] if rank < 4 else [],
}


@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
def test_what_others_hold_is_compared_and_the_rest_fails(labels: Labels) -> None:
    plan = planned(labels)
    assert [pair.rank for pair in plan.pairs] == [0, 1, 2, 3]
    assert [(gap.rank, gap.kind) for gap in plan.gaps] == [(rank, GapKind.FAILED) for rank in range(4, 8)]
    assert all("host b (10.0.0.2)" in gap.reason for gap in plan.gaps)
    assert plan.silent_ranks == () and plan.unreadable == 4
    judgement = judge(plan, {}, run_failed=False)
    assert judgement.exit_code is ExitCode.INCOMPLETE
    assert judgement.coverage.failed == 8, "the four that are there were not read either"
    assert set(LOST) <= {verdict.rank for verdict in judgement.labels[0].ranks}


def test_golden_on_the_lost_host() -> None:
    plan = planned(lambda rank: [*[whole()] * (rank == 5), part()])
    assert not plan.pairs
    assert {gap.rank: gap.kind for gap in plan.gaps} == dict.fromkeys(range(8), GapKind.FAILED)
    assert "it may be on rank 4 and others: its shards lie on host b" in plan.gaps[0].reason


def test_golden_slices_on_the_lost_host_leave_a_part_open() -> None:
    plan = planned(lambda rank: [label("x", "pta", 0, (4, 8), layout=TOLD), label("x", "acl", 1, (4, 64))])
    assert all("[0:4, 32:64]" in words and "host b" in words for words in plan.labels[0].uncovered.values())
    assert plan.labels[0].uncovered.keys() == {0, 1, 2, 3}


def test_a_sum_without_some_summands_is_not_compared() -> None:
    for ranks in (None, tuple(range(8))):
        plan = planned(on_every_rank(label("x", "pta", 0, (4, 8)), part(Layout((Partial(ranks=ranks),)))))
        assert not plan.pairs
        assert {gap.rank: gap.kind for gap in plan.gaps if gap.rank < 4} == dict.fromkeys(range(4), GapKind.MISMATCH)
        assert all("host b" in gap.reason for gap in plan.gaps)
    near = [Layout((Partial(ranks=ranks),)) for ranks in (tuple(range(4)), tuple(range(4, 8)))]
    plan = planned(lambda rank: [label("x", "pta", 0, (4, 8)), part(near[rank // 4])])
    (pair,) = plan.pairs
    assert len(pair.more_actual) == 3, "all ranks of this sum are here"


def test_a_question_keeps_its_options_and_the_gaps() -> None:
    lost = {7: WHY}
    plan = planned(lambda rank: [*[whole()] * (rank == 0), label("x", "acl", 1, (4, 16))], lost)
    assert plan.questions or plan.gaps
    assert [gap.rank for gap in plan.gaps if gap.rank in lost] == [7]
    for question in plan.questions:
        for option in (*question.options, question.unsettled):
            assert not any(gap.rank in lost for gap in option.gaps)


def test_labels_of_lost_ranks_alone_are_not_known_and_not_green() -> None:
    plan = planned(lambda rank: [whole(), part()] if rank > 3 else [whole("y"), label("y", "acl", 1, (4, 64))])
    assert [key.label for key in plan.keys] == ["y"]
    assert judge(plan, {}, run_failed=False).exit_code is ExitCode.INCOMPLETE
    assert plan.unreadable == 4


def test_labels_that_were_heard_of_while_the_ranks_ran() -> None:
    heard = [(LabelKey(0, "x", 0), 2), (LabelKey(0, "y", 0), 5), (LabelKey(0, "y", 0), 4), (LabelKey(1, "z", 0), 1)]
    ranks = [index(rank, whole(), label("x", "acl", 1, (4, 64)), world_size=8) for rank in range(4)]
    plan = plan_run(ranks, 8, lost=LOST, heard=heard)
    assert [key.label for key in plan.keys] == ["x", "y"]
    assert [(gap.rank, gap.kind) for gap in plan.labels[1].gaps] == [(4, GapKind.FAILED), (5, GapKind.FAILED)]
    assert plan.levels.keys() == set(plan.keys)
    assert not plan_run(ranks, 8, heard=heard).gaps
    judgement = judge(plan, {}, run_failed=False)
    assert [verdict.rank for verdict in judgement.labels[1].ranks] == [4, 5]

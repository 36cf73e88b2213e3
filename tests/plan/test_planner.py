"""Indices of several ranks and processes become pairs and named gaps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aclcmp.labeling.layout import Layout, Partial, Replicate, Shard
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.plan.planner import plan_run, plan_two


def index(rank: int, *labels: LabelRecord, process: int = 0, world_size: int = 2) -> ShardIndex:
    header = ShardHeader("run", rank, world_size, rank, process, "host", 1, float(process))
    return ShardIndex(ShardFiles(Path("shards"), rank, process), header, labels)


def label(name: str, side: str, seq: int, shape: tuple[int, ...] = (4,), **facts: Any) -> LabelRecord:
    fields: dict[str, Any] = {"dtype": "float32", "offset": 64, "nbytes": 16} | facts
    return LabelRecord(0, name, 0, side, seq, float(seq), "f.py:1", shape=shape, **fields)


def test_both_sides_make_a_pair_on_every_rank() -> None:
    plan = plan_run([index(r, label("x", "pta", 0), label("x", "acl", 1)) for r in range(2)], 2)
    assert [(pair.key.label, pair.rank) for pair in plan.pairs] == [("x", 0), ("x", 1)]
    assert not plan.gaps and not plan.silent_ranks
    assert plan.labels[0].sides[1].golden is not None


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        ([label("x", "pta", 0)], GapKind.MISSING_ACTUAL, r"actual \(acl\)"),
        ([label("x", "acl", 0)], GapKind.MISSING_GOLDEN, r"golden \(pta\)"),
        ([label("x", "pta", 0), label("x", "acl", 1, error="no room", offset=None)], GapKind.FAILED, "no room"),
        ([label("x", "", 0, error="bad side", offset=None)], GapKind.FAILED, "bad side"),
        ([label("x", "pta", 0), label("x", "acl", 1, dtype="int32")], GapKind.MISMATCH, "different kinds"),
        ([label("x", "pta", 0), label("x", "acl", 1, shape=(2, 3))], GapKind.MISMATCH, "shape"),
        (
            [label("x", "pta", 0), label("x", "acl", 1, tensor_path="a.bin", offset=None, dtype="")],
            GapKind.MISSING_ACTUAL,
            "a.bin",
        ),
    ],
)
def test_gaps_say_why(labels: list[LabelRecord], kind: GapKind, words: str) -> None:
    import re

    plan = plan_run([index(0, *labels, world_size=1)], 1)
    (gap,) = plan.gaps
    assert gap.kind is kind and re.search(words, gap.reason)
    assert not plan.pairs


def test_shards_that_were_not_closed_are_told_in_one_sentence() -> None:
    made = [index(rank, label("x", "pta", 0), world_size=4) for rank in range(4)]
    torn = [replace(each, torn=True) for each in made[1:]]
    words = "did not close their shards in order: labels are read from the journal"
    assert plan_run([made[0], *torn], 4).notes == (f"ranks 1-3 {words}",)
    assert plan_run(made, 4).notes == ()
    assert "rank 3 of the actual run did not close its shard in order" in plan_two(made, torn[2:], 4).notes[0]


def test_a_rank_without_labels_is_silent() -> None:
    plan = plan_run([index(0, label("x", "pta", 0)), index(1)], 3)
    assert plan.silent_ranks == (1, 2)


def test_processes_of_a_rank_count_on() -> None:
    """A golden script and then an accelerated one, or two runs of one script in one command."""
    first = index(0, label("x", "pta", 0), label("x", "acl", 1), process=0, world_size=1)
    second = index(0, label("x", "pta", 0), label("x", "acl", 1), process=1, world_size=1)
    plan = plan_run([second, first], 1)
    assert [pair.key.occurrence for pair in plan.pairs] == [0, 1]
    assert {pair.golden.path for pair in plan.pairs} == {"shards/rank00000.h5", "shards/rank00000-1.h5"}
    golden = index(0, label("x", "pta", 0), process=0, world_size=1)
    actual = index(0, label("x", "acl", 0), process=1, world_size=1)
    assert len(plan_run([golden, actual], 1).pairs) == 1


def test_processes_that_all_say_they_are_one_rank_are_told() -> None:
    """An engine's workers inherit the environment of the process that started them."""
    workers = [
        index(0, label("x", "acl", 3), label("y", "acl", 4), process=process, world_size=1) for process in range(3)
    ]
    golden = index(0, label("x", "pta", 0), process=3, world_size=1)
    assert any(
        note.startswith("3 processes recorded as rank 0 at the same time")
        for note in plan_run([*workers, golden], 1).notes
    )
    one_after_another = [index(0, label("x", "acl", 0), process=process, world_size=1) for process in range(3)]
    assert not plan_run(one_after_another, 1).notes
    with_other_labels = [index(0, label(str(n), "acl", 9), process=n, world_size=1) for n in range(3)]
    assert not plan_run(with_other_labels, 1).notes


def test_order_is_golden_and_orphans_follow_what_was_before_them() -> None:
    labels = [
        label("b", "pta", 0),
        label("a", "pta", 1),
        label("b", "acl", 2),
        label("only", "acl", 3),
        label("a", "acl", 4),
    ]
    plan = plan_run([index(0, *labels, world_size=1)], 1)
    assert [key.label for key in plan.keys] == ["b", "only", "a"]


def test_an_uncovered_slice_is_missing() -> None:
    """Rank 1 never labelled its half: half of the golden tensor was not compared with anything."""
    only = index(0, label("x", "pta", 0, (8,), nbytes=32), label("x", "acl", 1, (4,)))
    plan = plan_run([only, index(1, label("y", "pta", 0), label("y", "acl", 1))], 2)
    assert [(gap.key.label, gap.rank, gap.kind) for gap in plan.gaps] == [("x", 1, GapKind.MISSING_ACTUAL)]


def test_a_process_that_died_between_the_sides_does_not_shift_the_next() -> None:
    died = index(0, label("x", "pta", 0), process=0, world_size=1)
    again = index(0, label("x", "pta", 0), label("x", "acl", 1), process=1, world_size=1)
    plan = plan_run([died, again], 1)
    (pair,) = plan.pairs
    assert pair.golden.path == pair.actual.path == "shards/rank00000-1.h5"
    assert [gap.kind for gap in plan.gaps] == [GapKind.MISSING_ACTUAL]


def test_a_failure_is_never_hidden_by_a_good_record() -> None:
    labels = [label("x", "pta", 0, error="no", offset=None), label("x", "pta", 1), label("x", "acl", 2)]
    plan = plan_run([index(0, *labels, world_size=1)], 1)
    assert [gap.kind for gap in plan.gaps] == [GapKind.FAILED]


def run_of(side: str, locals_: list[tuple[int, ...]], *, tasks: int = 1, first: int = 0) -> list[ShardIndex]:
    return [
        index(rank, *(replace(label("x", side, t, shape, checksum=rank), task=first + t) for t in range(tasks)))
        for rank, shape in enumerate(locals_)
    ]


@pytest.mark.parametrize(("golden", "actual"), [(1, 8), (2, 8), (8, 2), (8, 1), (4, 4), (3, 1)])
@pytest.mark.parametrize("sides", ["pta acl", "acl acl", "pta pta", "acl pta"])
def test_two_runs_of_other_world_sizes_meet(golden: int, actual: int, sides: str) -> None:
    first, second = sides.split()
    plan = plan_two(run_of(first, [(6, 24 // golden)] * golden), run_of(second, [(6, 24 // actual)] * actual), actual)
    assert not plan.gaps and not plan.silent_ranks and not plan.labels[0].uncovered
    assert {pair.rank for pair in plan.pairs} == set(range(actual))
    assert sum(pair.region.size for pair in plan.pairs) == 6 * 24
    assert len(plan.labels) == 1 and set(plan.labels[0].sides) == set(range(actual))


def test_a_golden_run_of_both_sides_gives_its_golden_one() -> None:
    both = [index(0, label("x", "pta", 0), label("x", "acl", 1), world_size=1)]
    plan = plan_two(both, both, 1)
    assert len(plan.pairs) == 1
    golden = plan.labels[0].sides[0].golden
    assert not plan.gaps and golden is not None and golden.facts.seq == 0


def test_tasks_of_two_runs_pair_by_order() -> None:
    plan = plan_two(run_of("pta", [(4,)], tasks=3, first=5), run_of("acl", [(4,)], tasks=2, first=1), 1)
    assert [pair.key.task for pair in plan.pairs] == [1, 2]
    assert [(gap.kind, gap.key.task) for gap in plan.gaps] == [(GapKind.MISSING_ACTUAL, 7)]


def test_labels_of_one_run_only_are_missing() -> None:
    golden = [index(0, label("x", "pta", 0), label("g", "pta", 1), world_size=1)]
    actual = [index(r, label("x", "acl", 0), label("a", "acl", 1)) for r in range(2)]
    plan = plan_two(golden, actual, 2)
    found = {(gap.key.label, gap.rank): gap.kind for gap in plan.gaps}
    assert found == {
        ("g", 0): GapKind.MISSING_ACTUAL,
        ("a", 0): GapKind.MISSING_GOLDEN,
        ("a", 1): GapKind.MISSING_GOLDEN,
    }
    assert len(plan.pairs) == 2  # x, of which one golden tensor serves both ranks


def test_a_part_without_golden_is_told_with_its_place() -> None:
    whole = Layout((Shard(0),), (8, 4), (((0, 6),), ((0, 4),)))
    golden = [index(0, label("x", "pta", 0, (6, 4), layout=whole), world_size=1)]
    actual = [index(0, label("x", "acl", 0, (8, 4)), world_size=1)]
    plan = plan_two(golden, actual, 1)
    assert [pair.region.shape for pair in plan.pairs] == [(6, 4)]
    assert plan.labels[0].uncovered == {0: "no golden tensor for [6:8, 0:4] of the whole"}


def test_golden_on_one_rank_serves_all_on_every_host() -> None:
    ranks = [index(0, label("x", "pta", 0), label("x", "acl", 1)), index(1, label("x", "acl", 0))]
    ranks[1] = replace(ranks[1], header=replace(ranks[1].header, host="elsewhere"))
    plan = plan_run(ranks, 2)
    assert [(pair.rank, pair.golden.path, pair.golden.rank) for pair in plan.pairs] == [
        (r, "shards/rank00000.h5", 0) for r in range(2)
    ]
    assert [pair.actual.rank for pair in plan.pairs] == [0, 1]


def test_a_sum_without_one_of_its_summands_is_not_compared() -> None:
    partial = Layout((Partial(),))
    ranks = [index(r, label("x", "pta", 0), label("x", "acl", 1, layout=partial), world_size=3) for r in range(2)]
    plan = plan_run(ranks, 2)
    assert [(pair.rank, len(pair.more_actual)) for pair in plan.pairs] == [(0, 1)] and not plan.gaps
    failed = label("x", "acl", 1, error="no room", offset=None)
    plan = plan_run([*ranks, index(2, label("x", "pta", 0), failed, world_size=3)], 3)
    assert not plan.pairs
    assert {(gap.rank, gap.kind) for gap in plan.gaps} == {(0, GapKind.MISMATCH), (2, GapKind.FAILED)}
    assert "the summand of rank 2 is missing" in plan.gaps[0].reason


def test_groups_of_ranks_with_tensors_of_their_own_shapes() -> None:
    """Data parallel over 2 with prompts of other lengths, tensor parallel over 2; the golden side says nothing."""
    ranks = []
    for rank in range(4):
        tokens, group = (5, range(2)) if rank < 2 else (7, range(2, 4))
        layout = Layout((Shard(1, ranks=group),))
        ranks.append(index(rank, label("x", "pta", 0, (tokens, 8)), label("x", "acl", 1, (tokens, 4), layout=layout)))
    plan = plan_run(ranks, 4)
    assert not plan.gaps and [(p.rank, p.golden.rank, p.golden_region.start) for p in plan.pairs] == [
        (0, 0, (0, 0)),
        (1, 1, (0, 4)),
        (2, 2, (0, 0)),
        (3, 3, (0, 4)),
    ]
    assert {pair.layout for pair in plan.pairs} == {"Shard(dim=1)"}


def test_what_shapes_leave_open_is_a_question() -> None:
    ranks = [index(r, label("x", "pta", 0, (8,), checksum=r), label("x", "acl", 1, (4,))) for r in range(4)]
    plan = plan_run(ranks, 4)
    (question,) = plan.questions
    assert not plan.pairs and not plan.gaps and len(question.options) == 2
    assert {pair.layout for option in question.options for pair in option.pairs} == {
        "Shard(dim=0) in 2 groups of ranks, proved on the values",
        "Shard(dim=0), Replicate(), proved on the values",
    }
    assert [gap.kind for gap in question.unsettled.gaps] == [GapKind.MISMATCH] * 4
    assert "ambiguous: the shapes of all ranks allow 2 layouts" in question.unsettled.gaps[0].reason


def test_a_rank_without_its_slice_is_missing_in_two_runs_too() -> None:
    golden = run_of("pta", [(8,)])
    actual = [each for each in run_of("acl", [(2,)] * 4) if each.header.rank != 2]
    plan = plan_two(golden, actual, 4)
    assert [(gap.rank, gap.kind) for gap in plan.gaps] == [(2, GapKind.MISSING_ACTUAL)]
    assert [pair.region.start for pair in plan.pairs] == [(0,), (2,), (6,)]


def replicas(*checksums: int, layout: Layout | None = None, side: str = "acl") -> list[ShardIndex]:
    return [index(r, label("x", side, 0, checksum=c, layout=layout)) for r, c in enumerate(checksums)]


def test_replicas_that_differ_are_compared_with_the_most() -> None:
    """Told to be replicas, on one side only: ranks are held against those that are equal bit by bit."""
    plan = plan_run(replicas(7, 7, 3, 7, layout=Layout((Replicate(),))), 4)
    (found,) = plan.labels[0].replicas
    assert (found.side, found.declared, found.clusters) == ("actual", True, ((0, 1, 3), (2,)))
    assert [[(pair.rank, pair.golden.rank) for pair in pairs] for pairs in found.against] == [[(2, 0)]]
    assert not plan_run(replicas(7, 7, 7, layout=Layout((Replicate(),))), 3).labels[0].replicas


def test_where_all_replicas_differ_two_are_held_against_the_rest() -> None:
    """The first may be the odd one itself."""
    (found,) = plan_run(replicas(1, 2, 3, layout=Layout((Replicate(),))), 3).labels[0].replicas
    assert [[(pair.golden.rank, pair.rank) for pair in pairs] for pairs in found.against] == [
        [(0, 1), (0, 2)],
        [(1, 0), (1, 2)],
    ]


def test_without_a_word_only_a_few_among_equals_are_odd() -> None:
    assert [each.declared for each in plan_run(replicas(7, 7, 3, 7), 4).labels[0].replicas] == [False]
    assert not plan_run(replicas(7, 7, 3, 3), 4).labels[0].replicas
    assert not plan_run(replicas(1, 2), 2).labels[0].replicas
    golden, actual = replicas(7, 7, 3, 7, side="pta"), replicas(1, 1, 2, 1)
    both = [replace(g, records=g.records + a.records) for g, a in zip(golden, actual, strict=True)]
    assert not plan_run(both, 4).labels[0].replicas  # slices of equal shapes differ on both sides


def test_a_whole_beside_slices_is_a_replica() -> None:
    """The golden side is whole on every rank, the actual one sharded: then the golden ones ought to be the same."""
    ranks = [index(r, label("x", "pta", 0, (8,), checksum=r // 3), label("x", "acl", 1, (2,))) for r in range(4)]
    (found,) = plan_run(ranks, 4).labels[0].replicas
    assert (found.side, found.declared, found.clusters) == ("golden", True, ((0, 1, 2), (3,)))

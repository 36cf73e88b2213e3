"""Plans of noise floors: what belongs together is compared, what may not is left out; the main plan sees no ref."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.labeling.layout import Layout, Partial, Replicate, Shard, layout_from_text
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.idmap.candidates import candidate_labels, labels_by_rank
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRule, LayoutRules
from aclcmp.orchestrator.plan.noise_plans import plan_reference, plan_repeat
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.pipeline.test_resolve_layouts import Run
from tests.plan.test_planner import index, label

Array = npt.NDArray[np.floating]
SHARD = Layout((Shard(0),))
ZIGZAG = Layout((Shard(0, zigzag=True),))
SUM = Layout((Partial(),))
ALL = Layout((Replicate(),))


def planned(indices: Sequence[ShardIndex], world_size: int, layouts: LayoutRules | None = None) -> Plan:
    plan = plan_reference(indices, world_size, layouts or LayoutRules())
    assert plan is not None
    assert not (plan.gaps or plan.questions or plan.silent_ranks or plan.unreadable)
    assert not any(each.replicas or each.second_look or each.uncovered for each in plan.labels)
    assert all(each.pairs and set(each.sides) == {pair.rank for pair in each.pairs} for each in plan.labels)
    return plan


def named(plan: Plan) -> list[tuple[str, int, int]]:
    return [(pair.key.label, pair.rank, pair.golden.rank) for pair in plan.pairs]


def test_without_references_there_is_no_plan() -> None:
    assert plan_reference([], 2) is None
    assert plan_reference([index(0, label("x", "pta", 0), label("x", "acl", 1)), index(1)], 2) is None


def test_golden_labels_with_a_reference_are_compared_with_it() -> None:
    ranks = [
        index(
            r,
            label("x", "ref", 0, dtype="float64", nbytes=32, offset=128),
            label("x", "pta", 1),
            label("x", "acl", 2),
            label("only golden", "pta", 3),
            label("only golden", "acl", 4),
        )
        for r in range(2)
    ]
    plan = planned(ranks, 2)
    assert named(plan) == [("x", 0, 0), ("x", 1, 1)]
    assert [(pair.golden.dtype, pair.actual.dtype) for pair in plan.pairs] == [("float64", "float32")] * 2
    assert [(pair.golden.offset, pair.actual.offset) for pair in plan.pairs] == [(128, 64)] * 2
    assert {pair.key for pair in plan.pairs} <= set(plan_run(ranks, 2).keys)
    assert plan.notes == ()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([label("x", "ref", 0)], "x: it has no golden side"),
        ([label("x", "ref", 0), label("x", "acl", 1)], "x: it has no golden side"),
        ([label("x", "ref", 0, error="it is a list", offset=None), label("x", "pta", 1)], "on rank 0 it failed: it is"),
        ([label("x", "ref", 0), label("x", "pta", 1, error="no", offset=None)], "x: their shapes, types"),
        ([label("x", "ref", 0), label("x", "pta", 1, shape=(5,))], "x: their shapes, types"),
        ([label("x", "ref", 0), label("x", "pta", 1, dtype="int32")], "x: their shapes, types"),
    ],
)
def test_a_reference_that_is_of_no_use_is_noted(labels: list[LabelRecord], words: str) -> None:
    plan = planned([index(0, *labels, world_size=1)], 1)
    assert not plan.labels
    (note,) = plan.notes
    assert note.startswith("1 labels with a reference give no noise floor, e.g. ") and words in note


def test_occurrences_and_tasks_are_those_of_the_run() -> None:
    """References that another process labelled neither move golden labels nor are moved by them."""

    def several(side: str, *places: tuple[int, int]) -> list[LabelRecord]:
        return [replace(label("x", side, n), task=t, occurrence=o) for n, (t, o) in enumerate(places)]

    first = index(0, *several("ref", (0, 0), (0, 1)), *several("acl", (1, 0)), process=0, world_size=1)
    second = index(0, *several("pta", (0, 0), (0, 1), (1, 0)), *several("acl", (0, 0), (1, 0)), process=1, world_size=1)
    third = index(0, *several("pta", (0, 0)), *several("ref", (0, 0)), process=2, world_size=1)
    main = plan_run([first, second, third], 1)
    plan = planned([first, second, third], 1)
    keys = {pair.key for pair in plan.pairs}
    assert keys == {(0, "x", 0), (0, "x", 1), (0, "x", 2)} and keys <= set(main.keys)
    last = next(pair for pair in plan.pairs if pair.key.occurrence == 2)
    assert last.golden.path == last.actual.path == "shards/rank00000-2.h5"


def test_a_reference_beside_actual_labels_only_counts_by_itself() -> None:
    """Three scripts in one command: an accelerated one that was begun twice, with the reference, and golden."""
    died = index(0, label("x", "acl", 0), process=0, world_size=1)
    again = index(0, label("x", "acl", 0), label("x", "ref", 1), process=1, world_size=1)
    golden = index(0, label("x", "pta", 0), process=2, world_size=1)
    assert [pair.key.occurrence for pair in planned([died, again, golden], 1).pairs] == [0]


@pytest.mark.parametrize("number", range(40))
def test_the_main_plan_is_the_same_with_references_and_without(number: int) -> None:
    chance = random.Random(number)
    with_them, without = [], []
    for rank in range(3):
        for process in range(2):
            counts: dict[tuple[int, str, str], int] = {}
            records = []
            for seq in range(chance.randrange(9)):
                task, name = chance.randrange(2), chance.choice("xyz")
                side = chance.choice(["pta", "acl", "ref"])
                occurrence = counts.get((task, name, side), 0)
                counts[task, name, side] = occurrence + 1
                failed: dict[str, Any] = {"error": "no", "offset": None} if chance.random() < 0.1 else {}
                made = label(name, side, seq, checksum=chance.randrange(2), **failed)
                records.append(replace(made, task=task, occurrence=occurrence))
            with_them.append(index(rank, *records, process=process, world_size=3))
            kept = [record for record in records if record.side != "ref"]
            without.append(index(rank, *kept, process=process, world_size=3))

    def told(plan: Plan) -> object:
        labels = [(each.key, each.pairs, each.gaps, each.replicas, sorted(each.sides)) for each in plan.labels]
        return labels, plan.levels, plan.silent_ranks, plan.notes

    assert told(plan_run(with_them, 3)) == told(plan_run(without, 3))
    assert told(plan_two(with_them, with_them, 3, IdMap())) == told(plan_two(without, without, 3, IdMap()))
    for side in ("pta", "acl"):
        assert candidate_labels(with_them, side) == candidate_labels(without, side)
        assert set(labels_by_rank(with_them, side)) == set(labels_by_rank(without, side))
    repeat = plan_repeat(with_them, with_them, 3)
    assert repeat.pairs == plan_repeat(without, without, 3).pairs
    assert {pair.key for pair in repeat.pairs} <= set(plan_run(without, 3).keys)
    reference = plan_reference(with_them, 3)
    assert reference is None or {pair.key for pair in reference.pairs} <= set(plan_run(without, 3).keys)


def test_references_that_come_several_times_are_samples() -> None:
    golden = [replace(label("x", "pta", seq), occurrence=seq) for seq in range(2)]
    references = [replace(label("x", "ref", seq), occurrence=seq - 2, offset=10 * seq) for seq in range(2, 8)]
    ranks = [index(0, *golden, *references, world_size=1)]
    plans = [plan_reference(ranks, 1, sample=sample) for sample in range(4)]
    assert plans[3] is None
    paired = [[(pair.key.occurrence, pair.golden.offset) for pair in plan.pairs] for plan in plans if plan is not None]
    assert paired == [[(0, 20), (1, 30)], [(0, 40), (1, 50)], [(0, 60), (1, 70)]]


def test_a_rank_with_references_only_is_silent_and_a_run_of_them_has_no_side() -> None:
    ranks = [index(0, label("x", "pta", 0), label("x", "acl", 1)), index(1, label("x", "ref", 0))]
    plan = plan_run(ranks, 2)
    assert plan.silent_ranks == (1,) and not plan.gaps
    references = [index(0, label("x", "ref", 0), world_size=1)]
    assert plan_run(references, 1).keys == []
    two = plan_two(references, [index(0, label("x", "acl", 0), world_size=1)], 1)
    assert not two.pairs and [gap.reason for gap in two.gaps] == ["no golden (pta) side on this rank"]
    only_actual = [index(0, label("x", "acl", 0), label("x", "ref", 1), world_size=1)]
    assert len(plan_two(only_actual, only_actual, 1).pairs) == 1


X = np.random.default_rng(0).standard_normal((16, 6))


def slices(x: Array, count: int = 4) -> list[Array]:
    return list(np.split(x, count))


def zigzag(x: Array) -> list[Array]:
    chunks = np.split(x, 8)
    return [np.concatenate([chunks[r], chunks[7 - r]]) for r in range(4)]


def summands(x: Array) -> list[Array]:
    parts = np.random.default_rng(1).standard_normal((3, *x.shape))
    return [*parts, x - parts.sum(0)]


Held = tuple[Sequence[Array | None], Layout | None]


@pytest.mark.parametrize(
    ("golden", "reference", "ranks"),
    [
        (([X] * 4, None), ([X] * 4, None), 4),
        (([X] * 4, None), ([X], None), 4),  # golden ones are equal bit by bit
        (([X], None), ([None, None, X], ALL), 1),
        ((slices(X), None), (slices(X), None), 4),
        (([X[:3], X[3:9], X[9:]], None), ([X[:3], X[3:9], X[9:]], None), 3),
        ((slices(X), SHARD), (slices(X), None), 4),
        ((slices(X), None), (slices(X), SHARD), 4),
        ((slices(X), SHARD), ([X], None), 4),
        ((slices(X), SHARD), ([None, X], ALL), 4),
        ((zigzag(X), ZIGZAG), (zigzag(X), None), 4),
        ((zigzag(X), ZIGZAG), ([X], ALL), 4),
        ((summands(X), SUM), (summands(X), None), 1),
        ((summands(X), SUM), ([X], ALL), 1),
        (([X], None), (slices(X), SHARD), 1),
        # not certain: no floor rather than one that hides faults
        ((zigzag(X), None), ([X], None), 0),
        ((slices(X), None), ([X], None), 0),
        ((slices(X), None), (slices(X)[:1], None), 1),
        ((slices(X), None), ([X[:4] * 0, *slices(X)[1:3]], None), 3),
    ],
)
def test_what_is_paired_lies_in_the_same_place(tmp_path: Path, golden: Held, reference: Held, ranks: int) -> None:
    run = Run(tmp_path)
    for side, (held, layout), dtype in (("pta", golden, np.float32), ("ref", reference, np.float64)):
        for rank, array in enumerate(held):
            if array is not None:
                run.label(rank, side, "x", array.astype(dtype), layout)
    plan = planned(run.indices(), 4)
    assert len({pair.rank for pair in plan.pairs}) == ranks
    outcomes = run.compare(plan.pairs)
    for stats in outcomes.values():
        assert isinstance(stats, PairStats)
    if reference[0][0] is None or reference[0][0].any():
        errors = [metrics_of(stats).rel_l2 for stats in outcomes.values() if isinstance(stats, PairStats)]
        assert all(error < 1e-6 for error in errors)
    assert bool(plan.notes) == (ranks == 0)


def test_what_is_ambiguous_is_left_out() -> None:
    ranks = [
        index(r, label("x", "ref", 0, (8,), checksum=r), label("x", "pta", 1, (4,)), label("y", "pta", 2))
        for r in range(4)
    ]
    assert plan_run([replace(each, records=_as_sides(each)) for each in ranks], 4).questions
    plan = planned(ranks, 4)
    assert not plan.pairs and "give both labels their layout" in plan.notes[0]


def _as_sides(index: ShardIndex) -> tuple[LabelRecord, ...]:
    sides = {"ref": "pta", "pta": "acl"}
    return tuple(replace(record, side=sides[record.side]) for record in index.records)


def test_a_file_of_layouts_corrects_golden_ones() -> None:
    ranks = [index(r, label("x", "pta", 0, (4,)), world_size=4) for r in range(4)]
    ranks[0] = index(0, label("x", "ref", 0, (16,)), *ranks[0].records, world_size=4)
    assert not planned(ranks, 4).pairs
    rules = LayoutRules([LayoutRule("pta", "x", layout_from_text("Shard(0)"), 1)], "file")
    plan = planned(ranks, 4, rules)
    assert named(plan) == [("x", r, 0) for r in range(4)]
    assert [pair.golden_region.start for pair in plan.pairs] == [(0,), (4,), (8,), (12,)]


def run_of(*names: str, ranks: int = 2, first: int = 0, tasks: int = 1, **facts: Any) -> list[ShardIndex]:
    """Index a run of golden and actual labels that has its files in a folder of its own."""
    made = []
    for rank in range(ranks):
        records = [
            replace(label(name, side, n, **facts), task=first + task)
            for task in range(tasks)
            for n, name in enumerate(names)
            for side in ("pta", "acl")
        ]
        each = index(rank, *records, world_size=ranks)
        made.append(replace(each, files=replace(each.files, folder=Path(f"run{first}"))))
    return made


def test_golden_of_two_runs_by_rank_task_and_id() -> None:
    plan = plan_repeat(run_of("x", "here", first=1, tasks=2), run_of("x", "there", first=5, tasks=3), 2)
    assert not (plan.gaps or plan.questions or plan.silent_ranks or plan.notes)
    assert sorted((pair.key, pair.rank, pair.golden.rank) for pair in plan.pairs) == [
        ((task, "x", 0), rank, rank) for task in (1, 2) for rank in range(2)
    ]
    assert {(pair.golden.path[:4], pair.actual.path[:4]) for pair in plan.pairs} == {("run5", "run1")}


def test_a_repetition_compares_each_rank_with_itself() -> None:
    """Slices whose layout nothing tells, and tensors of their own on every rank: shapes are equal, values are not."""
    own, other = run_of("x", ranks=3), run_of("x", ranks=3, first=7)
    assert [(pair.rank, pair.golden.rank) for pair in plan_repeat(own, other, 3).pairs] == [(r, r) for r in range(3)]
    lost = plan_repeat(own, other[:2], 3)
    assert [(pair.rank, pair.golden.rank) for pair in lost.pairs] == [(0, 0), (1, 1), (2, 0)]  # equal bit by bit
    differing = [
        replace(each, records=tuple(replace(record, checksum=rank) for record in each.records))
        for rank, each in enumerate(own)
    ]
    lost = plan_repeat(differing, other[:2], 3)
    assert [(pair.rank, pair.golden.rank) for pair in lost.pairs] == [(0, 0), (1, 1)]


def test_a_repetition_keeps_layouts_and_sums(tmp_path: Path) -> None:
    runs = [Run(tmp_path / name) for name in "ab"]
    for run in runs:
        for rank in range(4):
            run.label(rank, "pta", "sharded", zigzag(X)[rank], ZIGZAG)
            run.label(rank, "pta", "sum", summands(X)[rank], SUM)
            run.label(rank, "acl", "sum", X)
            run.label(rank, "pta", "silent", slices(X)[rank])
    plan = plan_repeat(runs[0].indices(), runs[1].indices(), 4)
    ranks = {name: [p.rank for p in plan.pairs if p.key.label == name] for name in ("sharded", "sum", "silent")}
    assert set(ranks["sharded"]) == set(ranks["silent"]) == set(range(4)) and ranks["sum"] == [0]
    for stats in runs[0].compare(plan.pairs).values():
        assert isinstance(stats, PairStats) and metrics_of(stats).rel_l2 == 0.0


def test_runs_that_share_nothing_make_an_empty_plan() -> None:
    assert plan_repeat([], [], 0).labels == ()
    assert plan_repeat(run_of("x"), run_of("y"), 2).labels == ()
    assert plan_repeat(run_of("x"), [], 2).labels == ()

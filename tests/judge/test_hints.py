"""What errors look like, folded over ranks; and sums over ranks that are golden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.compare.diagnosis.second_look import diagnose_pairs
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.diagnosis import Fit, Looks, Suspect
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.judge.hints import hints_of
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.diagnose import DiagnosisResult, diagnose
from tests.judge.wrong import FACTS, KEY, label_of, look_of

X = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)


def told(actual: dict[int, np.ndarray]) -> list[tuple[tuple[int, ...], str]]:
    label = label_of(X, actual)
    return [(hint.ranks, hint.kind) for hint in hints_of(label, {rank: look_of(X, y) for rank, y in actual.items()})]


def test_equal_hints_are_one() -> None:
    swapped = np.concatenate([X[:, 64:], X[:, :64]], 1)
    assert told({0: 2 * X, 1: X, 2: 2 * X, 3: swapped}) == [((0, 2), "scale"), ((3,), "shifted channels")]


def test_places_are_told_where_no_fit_is() -> None:
    random = np.random.default_rng(1)
    y = X.copy()
    y[20] += random.standard_normal(128)
    assert told({0: y}) == [((0,), "one row")]
    y = X.copy()
    y[:, 96:] += random.standard_normal((64, 32))
    assert told({0: y}) == [((0,), "last channels")]
    y = X.copy()
    y[:, 32:64] += random.standard_normal((64, 32))
    assert told({0: y}) == [((0,), "stretch channel")]
    y = X.copy()
    y[60:] += random.standard_normal((4, 128))
    assert told({0: y}) == [((0,), "last rows")]
    y = X.copy()
    y[:, ::16] += random.standard_normal((64, 8))
    assert told({0: y}) in ([((0,), "period channel")], [])
    growing = X + 0.02 * np.arange(64)[:, None] * random.standard_normal(X.shape)
    assert told({0: growing}) == [((0,), "growth with position")]
    assert told({0: X + random.standard_normal(X.shape)}) == []


def test_what_explains_too_little_is_no_hint() -> None:
    look = replace(look_of(X, 2 * X), fits=(Fit("scale", "words", 0.89),))
    assert hints_of(label_of(X, {0: 2 * X}), {0: look}) == ()
    (hint,) = hints_of(label_of(X, {0: 2 * X}), {0: replace(look, fits=(Fit("scale", "words", 0.95),))})
    assert (hint.words, hint.explained) == ("words", 0.95)


class World:
    """Labels in files, judged and looked at again in this process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tensors"
        self.path.write_bytes(b"")
        self.labels: list[LabelPlan] = []
        self.compared = 0

    def source(self, values: np.ndarray, rank: int = 0) -> Source:
        offset = self.path.stat().st_size
        with self.path.open("ab") as out:
            out.write(values.astype(np.float32).tobytes())
        return Source(str(self.path), offset, "float32", values.shape, rank=rank)

    def add(self, x: np.ndarray, actual: Sequence[np.ndarray], name: str = "x") -> None:
        """Add a label of which each rank holds the whole, or its slice of the last axis."""
        golden, key = self.source(x), LabelKey(0, name, 0)
        pairs = []
        for rank, y in enumerate(actual):
            start = (0,) * (y.ndim - 1) + (rank * y.shape[-1] if y.shape != x.shape else 0,)
            region, source = Region(start, y.shape), self.source(y, rank)
            pairs.append(Pair(key, rank, golden, region, source, Region.whole(y.shape), x.shape, region, ""))
        self.labels.append(LabelPlan(key, dict.fromkeys(range(len(actual)), Sides(FACTS, FACTS)), tuple(pairs)))

    def compare(self, pairs: Sequence[Pair]) -> Outcomes:
        self.compared += len(pairs)
        return {(pair.key, pair.rank): read_pair_stats(pair) for pair in pairs}

    def look(self, suspects: Sequence[Suspect]) -> Looks:
        return {suspect.name: diagnose_pairs(suspect) for suspect in suspects}

    @property
    def plan(self) -> Plan:
        keys = [label.key for label in self.labels]
        return Plan(tuple(self.labels), {key: level_of(key.label, "", "") for key in keys}, (), 0, ())

    def diagnose(self, look=None) -> DiagnosisResult:
        plan = self.plan
        judgement = judge(plan, self.compare(plan.pairs), run_failed=False)
        self.compared = 0
        return diagnose(plan, judgement, self.compare, look or self.look, {0: "a"})


def summands(count: int, seed: int = 5) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    parts = [random.standard_normal(X.shape) for _ in range(count - 1)]
    return [*parts, X - sum(parts)]


def test_a_missing_reduction(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add(X, summands(4))
    looks, patterns, hints = world.diagnose()
    assert sorted(looks) == [(KEY, rank) for rank in range(4)]
    (hint,) = hints
    assert (hint.kind, hint.ranks) == ("missing reduction", (0, 1, 2, 3)) and hint.explained > 0.99
    assert hint.words == "the sum over ranks 0, 1, 2, 3 is golden: a reduction over them is missing"
    assert patterns[0].ranks.startswith("all 4 ranks")


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3]], ids=["neighbours", "a step apart"])
def test_a_missing_reduction_in_groups(tmp_path: Path, order: list[int]) -> None:
    parts = [*summands(2, 5), *summands(2, 6)]
    world = World(tmp_path)
    world.add(X, [parts[i] for i in order])
    (hint,) = world.diagnose()[2]
    first = "ranks 0, 1" if order[1] == 1 else "ranks 0, 2"
    assert hint.words == f"the sum over {first} is golden, and so of 1 more groups: a reduction over them is missing"


def test_no_reduction_is_missing(tmp_path: Path) -> None:
    world = World(tmp_path)
    random = np.random.default_rng(3)
    world.add(X, [X + random.standard_normal(X.shape) for _ in range(4)])
    assert world.diagnose()[2] == ()
    assert world.compared == 1 + 2 + 2  # all four, neighbours, a step apart


def test_after_a_collective(tmp_path: Path) -> None:
    world = World(tmp_path)
    halves = [X[:, :64], X[:, 64:]]
    world.add(X, halves, "before")
    world.add(X, [X[::-1], X[::-1]], "after")
    _, (pattern,), (hint,) = world.diagnose()
    assert "right on all before: the collective" in pattern.ranks
    assert (hint.kind, hint.ranks) == ("reversed", (0, 1))


def test_without_a_second_look_there_is_a_report(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add(X, [2 * X])

    def interrupted(suspects: Sequence[Suspect]) -> Looks:
        raise KeyboardInterrupt

    assert world.diagnose(interrupted) == ({}, (), ())
    looks, (pattern,), hints = world.diagnose(lambda suspects: {each.name: "died" for each in suspects})
    assert (looks, hints) == ({}, ()) and pattern.by_rank == {0: 1.0}
    world.diagnose(lambda suspects: {})
    assert world.compared == 0  # after an interrupt nothing more is compared


def test_what_matches_is_not_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add(X, [X, X * np.float32(1 + 1e-7)])
    assert world.diagnose(lambda suspects: pytest.fail("looked")) == ({}, (), ())


def test_the_noise_of_the_labels_before_is_left_out_of_hints_and_patterns(tmp_path: Path) -> None:
    """The round-off of the first token's massive values outweighs the row that is wrong."""
    random = np.random.default_rng(1)
    x = X.copy()
    x[0] *= 1e6
    noise = np.float32(1e-5)
    y = x * (1 + noise * random.standard_normal(X.shape).astype(np.float32))
    y[40] += random.standard_normal(128).astype(np.float32)
    for before in (0, 3):
        world = World(tmp_path)
        for number in range(before):
            world.add(X, [X * (1 + noise * random.standard_normal(X.shape).astype(np.float32))], f"before {number}")
        world.add(x, [y])
        _, (pattern,), hints = world.diagnose()
        assert [hint.kind for hint in hints] == (["one row"] if before else []), before
        assert pattern.rows == ("row 40 holds all of it" if before else "")

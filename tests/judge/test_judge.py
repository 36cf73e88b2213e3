"""Verdicts on real statistics: what matches, what does not, and where it begins."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcome, PairStats
from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.dtype_limits import limits_of
from aclcmp.orchestrator.judge.judge import judge

FACTS = SideFacts("f.h5", "float32", (8, 16), "cpu", "model.py:7", 0, 0.0)
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((8, 16)).astype(np.float32)


def stats(x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> PairStats:
    region = Region.whole(x.shape)
    sides = [Operand(np.ascontiguousarray(side).reshape(-1), side.dtype.name, side.shape, region) for side in (x, y)]
    return pair_stats(sides[0], sides[1], x.shape, region)


def plan_of(
    names: list[str], ranks: int = 1, dtype: str = "float32", gaps: tuple[Gap, ...] = (), task: int = 0
) -> Plan:
    keys = [LabelKey(task, name, 0) for name in names]
    source = Source("f.h5", 0, dtype, X.shape)
    region = Region.whole(X.shape)
    labels = []
    for key in keys:
        own = tuple(gap for gap in gaps if gap.key == key)
        pairs = tuple(
            Pair(key, rank, source, region, source, region, X.shape, region, "same shape")
            for rank in range(ranks)
            if rank not in {gap.rank for gap in own}
        )
        labels.append(LabelPlan(key, {rank: Sides(FACTS, FACTS) for rank in range(ranks)}, pairs, own))
    return Plan(tuple(labels), {key: level_of(key.label, "", "") for key in keys}, (), 0, ())


def verdict_on(y: npt.NDArray[np.generic], x: npt.NDArray[np.generic] = X) -> tuple[Status, str]:
    plan = plan_of(["x"], dtype=x.dtype.name)
    judgement = judge(plan, {(plan.keys[0], 0): stats(x, y)}, run_failed=False)
    (rank,) = judgement.labels[0].ranks
    return rank.status, rank.reason


def test_levels() -> None:
    assert verdict_on(X)[0] is Status.MATCH
    assert verdict_on(X * np.float32(1 + 1e-6))[0] is Status.MATCH
    assert verdict_on(X * np.float32(1 + 1e-4))[0] is Status.DRIFT
    status, reason = verdict_on(X * np.float32(1.01))
    assert status is Status.DIVERGED and "limit 0.0005, 0.001 for the worst row (float32 table)" in reason


def test_one_wrong_token_among_many() -> None:
    x = RANDOM.standard_normal((20_000, 16)).astype(np.float32)
    y = x.copy()
    y[7_777] *= 1.01
    status, reason = verdict_on(y, x)
    assert status is Status.DIVERGED and "worst row 0.01 (row 7777)" in reason


def test_low_energy_rows_are_held_against_the_typical_row() -> None:
    x = X.copy()
    x[3] *= 1e-8
    assert verdict_on(x + np.float32(1e-9) * RANDOM.standard_normal(X.shape).astype(np.float32), x)[0] is Status.MATCH


def test_nonfinite_places() -> None:
    x, y = X.copy(), X.copy()
    y[2, 3] = np.nan
    status, reason = verdict_on(y, x)
    assert status is Status.NONFINITE and "actual has 1 NaN, golden none" in reason
    x[2, 3] = np.nan
    assert verdict_on(y, x)[0] is Status.MATCH
    x[2, 3], y[2, 3] = np.inf, -np.inf
    assert verdict_on(y, x)[0] is Status.NONFINITE


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_exact_kinds(dtype: str) -> None:
    x = (X > 0).astype(dtype)
    y = x.copy()
    assert verdict_on(y, x)[0] is Status.MATCH
    y[0, 0] = 1 - y[0, 0] if dtype != "bool" else ~y[0, 0]
    status, reason = verdict_on(y, x)
    assert status is Status.DIVERGED and "1 of 128 values differ" in reason


def test_golden_all_zero() -> None:
    assert verdict_on(np.zeros_like(X), np.zeros_like(X))[0] is Status.MATCH
    status, reason = verdict_on(X, np.zeros_like(X))
    assert status is Status.DIVERGED and "golden is all zero" in reason


def test_narrower_dtype_decides() -> None:
    assert limits_of("float32", "bfloat16").source == "bfloat16 table"
    assert limits_of("complex64", "complex64").source == "float32 table"
    assert limits_of("int64", "int64").fail == 0.0


GOOD, BAD = stats(X, X), stats(X, X * np.float32(2))


def test_first_is_own_what_follows_is_inherited_and_tasks_start_afresh() -> None:
    first, second = plan_of(["a", "b", "c"], ranks=3), plan_of(["a", "b", "c"], ranks=3, task=1)
    levels = first.levels | second.levels
    plan = Plan(first.labels + second.labels, levels, (), 0, ())
    outcomes: dict[tuple[LabelKey, int], Outcome] = {(p.key, p.rank): GOOD for p in plan.pairs}
    for task in (0, 1):
        outcomes[LabelKey(task, "b", 0), 1] = BAD
        for rank in range(3):
            outcomes[LabelKey(task, "c", 0), rank] = BAD
    judgement = judge(plan, outcomes, run_failed=False)
    told = judgement.first_divergence
    assert told is not None and (told.key, told.ranks) == (LabelKey(0, "b", 0), (1,))
    assert told.call_site == "model.py:7"
    origins = {(v.key.task, v.key.label): {r.rank: r.origin for r in v.ranks} for v in judgement.labels}
    for task in (0, 1):
        assert origins[task, "a"] == {0: None, 1: None, 2: None}
        assert origins[task, "b"] == {0: None, 1: Origin.OWN, 2: None}
        assert set(origins[task, "c"].values()) == {Origin.INHERITED}
    assert judgement.first_by_rank == {0: LabelKey(0, "c", 0), 1: LabelKey(0, "b", 0), 2: LabelKey(0, "c", 0)}
    assert judgement.exit_code is ExitCode.DIVERGED


def test_exit_codes_in_their_order() -> None:
    gap = Gap(LabelKey(0, "b", 0), 0, GapKind.MISSING_ACTUAL, "no actual")
    plan = plan_of(["a", "b"], gaps=(gap,))
    key = (plan.keys[0], 0)
    assert judge(plan, {key: GOOD}, run_failed=False).exit_code is ExitCode.INCOMPLETE
    assert judge(plan, {key: BAD}, run_failed=False).exit_code is ExitCode.DIVERGED
    assert judge(plan, {key: BAD}, run_failed=True).exit_code is ExitCode.FAILED
    assert judge(plan_of(["a"]), {key: GOOD}, run_failed=False).exit_code is ExitCode.MATCH
    assert judge(plan_of([]), {}, run_failed=False).exit_code is ExitCode.INCOMPLETE
    assert judge(plan_of(["a"]), {key: "torn"}, run_failed=False).exit_code is ExitCode.INCOMPLETE


def test_what_was_not_compared_is_failed_and_counted() -> None:
    plan = plan_of(["a"], ranks=2)
    judgement = judge(plan, {(plan.keys[0], 0): "file ends early"}, run_failed=False)
    assert [r.status for r in judgement.labels[0].ranks] == [Status.FAILED] * 2
    assert judgement.coverage.failed == 2 and judgement.coverage.compared == 0


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_values_whose_squares_leave_float64(scale: float) -> None:
    x = X.astype(np.float64) * scale
    assert verdict_on(x * 3, x)[0] is Status.DIVERGED
    assert verdict_on(x.copy(), x)[0] is Status.MATCH
    assert verdict_on(x * (1 + 1e-15), x)[0] is Status.MATCH


def test_what_could_not_be_read_is_incomplete() -> None:
    plan = replace(plan_of(["a"]), unreadable=1)
    judgement = judge(plan, {(plan.keys[0], 0): GOOD}, run_failed=False)
    assert judgement.exit_code is ExitCode.INCOMPLETE and not judgement.coverage.complete

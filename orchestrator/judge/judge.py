"""From statistics to verdicts: pure, so that a verdict can be taken again without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from math import isfinite

from aclcmp.orchestrator.compare.metrics import Metrics, metrics_of
from aclcmp.orchestrator.compare.stats import Basis, PairStats
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.table import limits_of
from aclcmp.orchestrator.judge.verdicts import (
    Coverage,
    FirstDivergence,
    Judgement,
    LabelVerdict,
    Limits,
    Origin,
    RankVerdict,
    Status,
    worst,
)
from aclcmp.orchestrator.plan.levels import Level
from aclcmp.orchestrator.plan.model import Gap, GapKind, Plan, Sides
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

Outcome = PairStats | str
"""What came of comparing a pair: its statistics, or why it could not be read."""

_TINY = 1e-140
"""Values below have squares that float64 cannot hold exactly."""
WRONG = (Status.DIVERGED, Status.NONFINITE)
_ESTIMATE = {Basis.VALUES: "", Basis.FINGERPRINT: "about ", Basis.NORMS: "at least "}
_GAP_STATUS = {
    GapKind.MISSING_GOLDEN: Status.MISSING,
    GapKind.MISSING_ACTUAL: Status.MISSING,
    GapKind.MISMATCH: Status.MISMATCH,
    GapKind.FAILED: Status.FAILED,
}


def judge(plan: Plan, outcomes: Mapping[tuple[LabelKey, int], Outcome], *, run_failed: bool) -> Judgement:
    """Judge every (label, rank) of the plan; `run_failed` says that a rank failed, whatever was compared."""
    verdicts: dict[LabelKey, list[RankVerdict]] = {key: [] for key in plan.keys}
    for gap in plan.gaps:
        verdicts[gap.key].append(_gap_verdict(gap, plan.sides[gap.key, gap.rank]))
    unread = 0
    for (key, rank), (pair, *_) in groupby(plan.pairs, lambda pair: (pair.key, pair.rank)):
        outcome = outcomes.get((key, rank), "was not compared")
        verdict = _pair_verdict(pair, plan.sides[key, rank], outcome)
        if (key, rank) in plan.uncovered and verdict.status in (Status.MATCH, Status.DRIFT):
            reason = f"{plan.uncovered[key, rank]}; the rest: {verdict.reason}"
            verdict = replace(verdict, status=Status.MISSING, reason=reason)
        verdicts[key].append(verdict)
        unread += verdict.status is Status.FAILED
    labels = _with_origins([_label(key, ranks, plan.levels[key]) for key, ranks in verdicts.items()])
    first = _first_divergence(labels)
    coverage = _coverage(plan, unread)
    code = _exit_code(run_failed, first is not None, coverage.complete)
    names = {
        ExitCode.MATCH: "match",
        ExitCode.DIVERGED: "diverged",
        ExitCode.FAILED: "failed",
        ExitCode.INCOMPLETE: "incomplete",
    }
    return Judgement(names[code], code, first, _first_by_rank(labels), tuple(labels), coverage)


def _exit_code(run_failed: bool, diverged: bool, complete: bool) -> ExitCode:
    if run_failed:
        return ExitCode.FAILED
    if diverged:
        return ExitCode.DIVERGED
    return ExitCode.MATCH if complete else ExitCode.INCOMPLETE


def _gap_verdict(gap: Gap, sides: Sides) -> RankVerdict:
    return RankVerdict(
        rank=gap.rank,
        status=_GAP_STATUS[gap.kind],
        origin=None,
        reason=gap.reason,
        bitwise=False,
        layout="",
        golden=sides.golden,
        actual=sides.actual,
        stats=None,
        metrics=None,
        limits=None,
        margin=None,
    )


def _pair_verdict(pair: Pair, sides: Sides, outcome: Outcome) -> RankVerdict:
    if isinstance(outcome, str):
        failed = _gap_verdict(Gap(pair.key, pair.rank, GapKind.FAILED, outcome), sides)
        return replace(failed, layout=pair.layout)
    limits = limits_of(pair.golden.dtype, pair.actual.dtype)
    metrics = metrics_of(outcome)
    status, margin, reason = weigh(outcome, metrics, limits)
    return RankVerdict(
        rank=pair.rank,
        status=status,
        origin=None,
        reason=reason,
        bitwise=outcome.n_equal == outcome.n and pair.golden.dtype == pair.actual.dtype,
        layout=pair.layout,
        golden=sides.golden,
        actual=sides.actual,
        stats=outcome,
        metrics=metrics,
        limits=limits,
        margin=margin,
    )


def weigh(stats: PairStats, metrics: Metrics, limits: Limits) -> tuple[Status, float | None, str]:
    """Hold one pair's errors against its limits; return status, margin (error / limit) and the reason in one line.

    Exact types diverge with any difference. Floats are held against the limits with their relative L2 over the whole
    pair and over its worst row: one wrong token among many hides in the former alone.
    """
    if stats.n == 0:
        return Status.MATCH, None, "both sides are empty"
    if places := _nonfinite_places(stats):
        return Status.NONFINITE, None, places
    if stats.n_equal == stats.n:
        return Status.MATCH, 0.0, "equal bit by bit"
    if limits.fail == 0.0:
        differing = f"{stats.n - stats.n_equal:,} of {stats.n:,} values" if stats.n_equal >= 0 else "the values"
        return Status.DIVERGED, None, f"{differing} differ; none may"
    error = max(metrics.rel_l2, metrics.worst_row)
    if stats.basis is not Basis.VALUES and _squares_are_lost(stats):
        return Status.FAILED, None, f"squares leave float64, where {stats.basis.value} tell nothing; use --capture full"
    if not isfinite(stats.sum_xx + stats.sum_dd) or (stats.sum_dd == 0.0 and metrics.max_abs > 0.0):
        # squares that overflow or underflow float64 say nothing: the largest error relative to the largest value does
        error = metrics.linf_rel
        words = f"largest error {error:.2g} of the largest value"
        return _against(error, words, limits)
    words = f"relative L2 {_ESTIMATE[stats.basis]}{metrics.rel_l2:.2g}"
    if metrics.worst_row > metrics.rel_l2:
        at_least = "" if stats.basis is Basis.VALUES else "at least "
        words += f", worst row {at_least}{metrics.worst_row:.2g} (row {metrics.worst_row_index * stats.rows.group})"
    if stats.sum_xx == 0.0 and metrics.max_abs > 0.0:
        words = f"golden is all zero, actual is not (largest {metrics.max_abs:.2g})"
    if stats.basis is Basis.NORMS and error <= limits.warn:
        words += " (by norms alone: what keeps the norm of every row, a permutation within it for one, goes unseen)"
    return _against(error, words, limits)


def _squares_are_lost(stats: PairStats) -> bool:
    """Whether sums of squares overflow, or underflow to 0 although values are not 0."""
    largest = max(abs(stats.min_x), abs(stats.max_x), abs(stats.min_y), abs(stats.max_y))
    return not isfinite(stats.sum_xx + stats.sum_yy + stats.sum_dd) or (0.0 < largest < _TINY)


def _against(error: float, words: str, limits: Limits) -> tuple[Status, float | None, str]:
    if not error <= limits.fail:  # nan too: what cannot be weighed is not green
        return Status.DIVERGED, error / limits.fail, f"{words}; limit {limits.fail:g} ({limits.source})"
    if error > limits.warn:
        return Status.DRIFT, error / limits.fail, f"{words}; warned from {limits.warn:g} on ({limits.source})"
    return Status.MATCH, error / limits.fail, f"{words}; limit {limits.fail:g} ({limits.source})"


def _nonfinite_places(stats: PairStats) -> str:
    """Say how the non-finite places differ; "" when they are the same on both sides."""
    golden = (stats.nan_x, stats.posinf_x + stats.neginf_x)
    actual = (stats.nan_y, stats.posinf_y + stats.neginf_y)
    if sum(golden) == sum(actual) == stats.n_nonfinite_equal:
        return ""

    def words(counts: tuple[int, int]) -> str:
        told = [f"{count:,} {name}" for count, name in zip(counts, ("NaN", "infinite"), strict=True) if count]
        return " and ".join(told) or "none"

    common = f"{stats.n_nonfinite_equal:,} in common" if stats.n_nonfinite_equal >= 0 else "not in the same places"
    return f"non-finite values: actual has {words(actual)}, golden {words(golden)}, {common}"


def _label(key: LabelKey, ranks: list[RankVerdict], level: Level) -> LabelVerdict:
    status = worst(verdict.status for verdict in ranks)
    return LabelVerdict(key, status, tuple(sorted(ranks, key=lambda verdict: verdict.rank)), level)


def _with_origins(labels: list[LabelVerdict]) -> list[LabelVerdict]:
    """Tell own from inherited: within a task, what follows the first wrong label in golden order inherits from it.

    Ranks exchange data in collectives, so a label inherits also from other ranks; a task starts afresh.
    """
    wrong_tasks: set[int] = set()
    told: list[LabelVerdict] = []
    for label in labels:
        origin = Origin.INHERITED if label.key.task in wrong_tasks else Origin.OWN
        ranks = tuple(replace(r, origin=origin) if r.status in WRONG else r for r in label.ranks)
        if any(r.status in WRONG for r in ranks):
            wrong_tasks.add(label.key.task)
        told.append(replace(label, ranks=ranks))
    return told


def _first_divergence(labels: list[LabelVerdict]) -> FirstDivergence | None:
    for label in labels:
        wrong = [verdict for verdict in label.ranks if verdict.status in WRONG]
        if wrong:
            largest = max(wrong, key=lambda verdict: verdict.margin or float("inf"))
            side = largest.actual or largest.golden
            return FirstDivergence(
                key=label.key,
                ranks=tuple(verdict.rank for verdict in wrong),
                origin=Origin.OWN,
                why=largest.reason,
                call_site=side.call_site if side else "",
            )
    return None


def _first_by_rank(labels: list[LabelVerdict]) -> dict[int, LabelKey]:
    first: dict[int, LabelKey] = {}
    for label in labels:
        for verdict in label.ranks:
            if verdict.status in WRONG:
                first.setdefault(verdict.rank, label.key)
    return dict(sorted(first.items()))


def _coverage(plan: Plan, unread: int) -> Coverage:
    kinds = [gap.kind for gap in plan.gaps]
    return Coverage(
        compared=plan.held - unread - len(plan.uncovered),
        missing_golden=kinds.count(GapKind.MISSING_GOLDEN) + len(plan.uncovered),
        missing_actual=kinds.count(GapKind.MISSING_ACTUAL),
        mismatch=kinds.count(GapKind.MISMATCH),
        failed=kinds.count(GapKind.FAILED) + unread,
        unreadable=plan.unreadable,
        silent_ranks=plan.silent_ranks,
    )

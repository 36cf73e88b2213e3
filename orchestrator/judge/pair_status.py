"""The status of one pair: its errors against their limits."""

from __future__ import annotations

from math import isfinite

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.compact import number_reader
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.stats import Basis, PairStats
from aclcmp.orchestrator.core.verdicts import Limits, Status, is_price
from aclcmp.orchestrator.judge.dtype_limits import table_name

_TINY = 1e-140
"""Values below have squares that float64 cannot hold exactly."""
_NOTHING = {"float64": 1e-150, "float32": 1e-19, "bfloat16": 1e-19, "float16": 1e-7}
"""Values that count as 0 beside zeros: their squares are no normal numbers of the type (of float16, they are not)."""
_CLEARLY = 1e-3
"""Part of the mean square of the labels before from which golden is no round-off."""
_usual_numbers = number_reader(PairStats, "n", "n_equal", "n_finite", "sum_xx", "sum_dd")
_ESTIMATE = {Basis.VALUES: "", Basis.FINGERPRINT: "about ", Basis.ROW_FINGERPRINT: "about ", Basis.NORMS: "at least "}


def judge_pair(
    stats: PairStats, metrics: Metrics, limits: Limits, ties: int = 0, worst_row_name: str = ""
) -> tuple[Status, float | None, str]:
    """Judge one pair's errors by its limits; return status, margin (error / limit) and the reason in one line.

    Exact types diverge with any difference, but drift where all differences are `ties`. Of floats the relative L2 of
    the median row and of the worst row count: one wrong token among many hides in the former, and that of the whole
    tensor is that of the one token whose activations are massive.
    """
    if stats.n == 0:
        return Status.MATCH, None, "both sides are empty"
    if places := nonfinite_places(stats):
        return Status.NONFINITE, None, places
    if stats.n_equal == stats.n:
        return Status.MATCH, 0.0, "equal bit by bit"
    if limits.fail == 0.0:
        differing = f"{stats.n - stats.n_equal:,} of {stats.n:,} values" if stats.n_equal >= 0 else "the values"
        if ties and ties == stats.n - stats.n_equal:
            return Status.DRIFT, None, f"{differing} differ, all of them ties: the noise of the scores explains it"
        tied = f"; {ties:,} of them are ties" if ties else ""
        return Status.DIVERGED, None, f"{differing} differ; none may{tied}"
    if stats.basis is not Basis.VALUES and _loses_squares(stats):
        return Status.FAILED, None, f"squares leave float64, where {stats.basis.value} tell nothing; use --capture full"
    if stats.basis is Basis.VALUES and (largest := _largest_of_round_off(stats, limits)) is not None:
        return Status.MATCH, 0.0, f"nothing but round-off on both sides: no value is larger than {largest:.2g}"
    if not isfinite(stats.sum_xx + stats.sum_dd) or (stats.sum_dd == 0.0 and metrics.max_abs > 0.0):
        # squares that overflow or underflow float64 say nothing: the largest error relative to the largest value does
        words = f"largest error {metrics.linf_rel:.2g} of the largest value"
        return _words_within_limits(metrics.linf_rel, words, limits)
    error = limiting_error(stats, metrics, limits)
    words = f"relative L2 {_ESTIMATE[stats.basis]}{metrics.rel_l2:.2g}"
    is_bound = (
        stats.basis is not Basis.VALUES
    )  # beside an estimate of the whole it says nothing of rows that it is less
    if metrics.worst_row > metrics.rel_l2 or (is_bound and worst_row_name and stats.rows.count > 1):
        at_least = "at least " if is_bound else ""
        row = worst_row_name or f"row {metrics.worst_row_index * stats.rows.group}"
        words += f", median row {at_least}{metrics.row_p50:.2g}, worst row {at_least}{metrics.worst_row:.2g} ({row})"
    if stats.sum_xx == 0.0 and metrics.max_abs > 0.0:
        words = f"golden is all zero, actual is not (largest {metrics.max_abs:.2g})"
    if stats.basis is Basis.NORMS and error <= limits.warn:
        words += " (by norms alone: what keeps the norm of every row, a permutation within it for one, goes unseen)"
    return _words_within_limits(error, words, limits, metrics.rel_l2)


def status_and_margin(stats: PairStats, metrics: Metrics, limits: Limits, ties: int = 0) -> tuple[Status, float | None]:
    """Return status and margin as `judge_pair` does, without the reason, which takes most of its time."""
    n, n_equal, n_finite, xx, dd = _usual_numbers(stats)
    usual = n == n_finite != n_equal and stats.basis is Basis.VALUES and limits.fail > 0.0 < dd and isfinite(xx + dd)
    if usual and xx > _CLEARLY * limits.scale**2 * n:
        return within_limits(limiting_error(stats, metrics, limits), limits)
    return judge_pair(stats, metrics, limits, ties)[:2]


def _largest_of_round_off(stats: PairStats, limits: Limits) -> float | None:
    """Return the largest value of both sides where all values are round-off beside the labels before; else None.

    Golden that is zero beside values of size s may be a difference that cancelled: actual's is then up to 2 eps s.
    Golden that is not zero has digits of its own, unless it is another factor of eps / 2 smaller.
    """
    eps = DTYPES[limits.dtype].eps if limits.dtype else None
    if eps is None or not stats.n_finite:
        return None
    golden = max(abs(stats.min_x), abs(stats.max_x))
    largest = max(golden, abs(stats.min_y), abs(stats.max_y))
    if golden == 0.0:
        nothing = max(2 * eps * limits.scale, _NOTHING.get(table_name(limits.dtype), 0.0))
    else:
        nothing = (eps / 2) ** 2 * limits.scale
    return largest if largest <= nothing else None


def limiting_error(stats: PairStats, metrics: Metrics, limits: Limits) -> float:
    """Return the error that counts: that of the median row, or of the worst row beside its own limits if that is more.

    A tensor of one row has the limits for rows.
    """
    whole = metrics.rel_l2 / limits.rows
    if stats.rows.count < 2:
        return max(whole, metrics.worst_row / limits.rows)
    return max(whole, metrics.row_p50, metrics.worst_row / limits.rows)


def median_row_error(stats: PairStats, metrics: Metrics) -> float:
    """Return the error of the median row, of the whole where there are no rows."""
    return metrics.row_p50 if stats.rows.count else metrics.rel_l2


def _loses_squares(stats: PairStats) -> bool:
    """Tell whether sums of squares overflow, or underflow to 0 although values are not 0."""
    largest = max(abs(stats.min_x), abs(stats.max_x), abs(stats.min_y), abs(stats.max_y))
    return not isfinite(stats.sum_xx + stats.sum_yy + stats.sum_dd) or (0.0 < largest < _TINY)


def within_limits(error: float, limits: Limits) -> tuple[Status, float]:
    """Return the status of an error of floats, and its part of the limit."""
    if not error <= limits.fail:  # nan too: what cannot be weighed is not green
        return Status.DIVERGED, error / limits.fail
    return Status.DRIFT if error > limits.warn else Status.MATCH, error / limits.fail


def _words_within_limits(
    error: float, words: str, limits: Limits, rel_l2: float = 0.0
) -> tuple[Status, float | None, str]:
    status, margin = within_limits(error, limits)
    limit = limits.warn if status is Status.DRIFT else limits.fail
    rows = f", {limit * limits.rows:.3g} for the worst row" if limits.rows != 1.0 else ""
    limit_words = f"warned from {limit:.3g}{rows} on" if status is Status.DRIFT else f"limit {limit:.3g}{rows}"
    price = ""
    if is_price(status, rel_l2, (limits.dtype,) if limits.dtype else (), limits):
        price = ": the price of quantisation"
    elif limits.is_of(FloorSource.QUANTISED) and status is Status.DIVERGED:
        price = ": more than the price of quantisation"
    return status, margin, f"{words}; {limit_words} ({limits.source}){price}"


def nonfinite_places(stats: PairStats) -> str:
    """Say how the non-finite places differ; "" when they are the same on both sides."""
    golden = (stats.nan_x, stats.posinf_x + stats.neginf_x)
    actual = (stats.nan_y, stats.posinf_y + stats.neginf_y)
    if sum(golden) == sum(actual) == stats.n_nonfinite_equal:
        return ""

    def words(counts: tuple[int, int]) -> str:
        named = [f"{count:,} {name}" for count, name in zip(counts, ("NaN", "infinite"), strict=True) if count]
        return " and ".join(named) or "none"

    common = f"{stats.n_nonfinite_equal:,} in common" if stats.n_nonfinite_equal >= 0 else "not in the same places"
    return f"non-finite values: actual has {words(actual)}, golden {words(golden)}, {common}"

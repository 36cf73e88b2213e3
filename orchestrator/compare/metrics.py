"""The figures that people read, derived from the statistics of a pair."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aclcmp.orchestrator.compare.stats import PairStats, RowSums

# Sums are good to 1e-6; a variance that is a smaller part of the mean square than this is rounding.
_LOST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Metrics:
    """Derived figures; a float is nan where it is undefined. Formulas: see `metrics_of`."""

    rel_l2: float
    worst_row: float
    """Largest row_rel_l2; its denominator is the row's own norm, but at least the norm of the median non-zero row."""
    worst_row_index: int
    """Row group number of the worst row; -1 when there is none."""
    row_p50: float
    row_p99: float
    cosine: float
    pcc: float
    scale: float
    residual: float
    sg_rel: float
    snr_db: float
    linf_rel: float
    max_abs: float
    mean_abs: float
    rms: float
    max_rel: float
    mean_rel: float
    ratio_1k: float
    ratio_5k: float
    pass_rate: float
    max_ulp: int
    mismatch_share: float
    """Share of positions that are not equal."""


def metrics_of(stats: PairStats) -> Metrics:
    """Return the figures that follow from the statistics; x is golden, y actual, d = y - x, all over finite positions.

    =============  ==========================================================  =================================
    figure         formula                                                     known from
    =============  ==========================================================  =================================
    rel_l2         sqrt(Σd² / Σx²); 0 when both are 0, inf when only Σx² is    TTrace, AWS Neuron, torch.ao.ns
    row_rel_l2     sqrt(Σ_row d² / max(Σ_row x², median of those that are      AWS Neuron (per token), SGLang
                   not 0)); worst_row is the largest, row_p50 and row_p99
                   are values of rows at these ranks
    cosine         Σxy / sqrt(Σx² Σy²), clipped to [-1, 1]                     msprobe, Polygraphy
    pcc            (nΣxy - ΣxΣy) / sqrt((nΣx² - (Σx)²)(nΣy² - (Σy)²)),         ttnn
                   clipped; nan when a side is constant
    scale          α = Σxy / Σx²
    residual       sqrt(max(0, Σy² - α²Σx²) / Σx²): left after the best scale
    sg_rel         Σd² / (Σx² + Σy²), about rel_l2² / 2; 0 when all are 0      SGLang, DeepGEMM
    snr_db         -20 log10(rel_l2)                                           torch.ao.ns, Polygraphy
    linf_rel       max|d| / max|x|; 0 when both are 0                          AWS Neuron
    rms            sqrt(Σd² / n)
    mean_rel       Σ|d / x| / n, positions with x = 0 adding nothing           msprobe
    ratio_1k, _5k  share of |d| <= 1e-3 |x|, of |d| <= 5e-3 |x|                msprobe
    pass_rate      share of |d| <= atol + rtol |x|                             torch.testing, CANN
    =============  ==========================================================  =================================
    """
    n = stats.n_finite
    xx, yy, xy, dd = stats.sum_xx, stats.sum_yy, stats.sum_xy, stats.sum_dd
    rel_l2 = _relative(math.sqrt(dd), math.sqrt(xx))
    worst_row, worst_row_index, row_p50, row_p99 = _row_figures(stats.rows)
    scale = _share(xy, xx)
    largest = max(abs(stats.min_x), abs(stats.max_x))
    return Metrics(
        rel_l2=rel_l2,
        worst_row=worst_row,
        worst_row_index=worst_row_index,
        row_p50=row_p50,
        row_p99=row_p99,
        cosine=_correlation(xy, xx, yy),
        pcc=_pcc(stats),
        scale=scale,
        residual=math.sqrt(max(0.0, _share(yy - scale * xy, xx))) if not math.isnan(scale) else math.nan,
        sg_rel=_relative(dd, xx + yy),
        snr_db=-20 * math.log10(rel_l2) if rel_l2 else math.inf,
        linf_rel=_relative(stats.max_abs_d, largest) if n else math.nan,
        max_abs=stats.max_abs_d if n else math.nan,
        mean_abs=_share(stats.sum_abs_d, n),
        rms=math.sqrt(_share(dd, n)),
        max_rel=stats.max_rel_d if n else math.nan,
        mean_rel=_share(stats.sum_rel_d, n),
        ratio_1k=_rest(stats.n_over_1k, n),
        ratio_5k=_rest(stats.n_over_5k, n),
        pass_rate=_rest(stats.n_over_tolerance, n),
        max_ulp=stats.max_ulp,
        mismatch_share=_rest(stats.n_equal, stats.n),
    )


def _share(part: float, whole: float) -> float:
    """part / whole, nan when the whole is 0."""
    return part / whole if whole else math.nan


def _rest(count: int, whole: int) -> float:
    """The share of all but `count`; nan when the whole is 0 or the count is not known (-1)."""
    return 1 - count / whole if whole and count >= 0 else math.nan


def _relative(error: float, size: float) -> float:
    """error / size; without size 0 when there is no error either, and infinite when there is."""
    if size == 0:
        return 0.0 if error == 0 else math.inf
    return error / size


def _correlation(xy: float, xx: float, yy: float) -> float:
    """xy / sqrt(xx yy) within [-1, 1]; nan when a side is 0."""
    value = _share(xy, math.sqrt(xx) * math.sqrt(yy))
    return value if math.isnan(value) else min(max(value, -1.0), 1.0)


def _pcc(stats: PairStats) -> float:
    """Pearson's correlation; nan when the variance of a side is lost in its mean square."""
    n = stats.n_finite
    if n == 0:
        return math.nan
    variance_x = stats.sum_xx - stats.sum_x * (stats.sum_x / n)
    variance_y = stats.sum_yy - stats.sum_y * (stats.sum_y / n)
    if not (variance_x > _LOST_VARIANCE * stats.sum_xx and variance_y > _LOST_VARIANCE * stats.sum_yy):
        return math.nan
    return _correlation(stats.sum_xy - stats.sum_x * (stats.sum_y / n), variance_x, variance_y)


def _row_figures(rows: RowSums) -> tuple[float, int, float, float]:
    """Return worst_row, worst_row_index, row_p50 and row_p99."""
    if rows.index.size == 0:
        return math.nan, -1, math.nan, math.nan
    nonzero = rows.sum_xx[rows.sum_xx > 0]
    floor = np.median(nonzero) if nonzero.size else 0.0
    with np.errstate(all="ignore"):  # 0 / 0 is set right below; sums that overflowed stay as they are
        relative = np.sqrt(rows.sum_dd / np.maximum(rows.sum_xx, floor))
    relative[rows.sum_dd == 0] = 0.0
    worst = int(np.argmax(relative))
    # Values of rows, not between them: between 0 and infinity there is nothing.
    p50, p99 = np.quantile(relative, (0.5, 0.99), method="inverted_cdf").tolist()
    return float(relative[worst]), int(rows.index[worst]), p50, p99

"""The figures that people read, derived from the statistics of a pair."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.compact import Table, empty_table, from_table, packed, table
from aclcmp.orchestrator.core.stats import PairStats, RowSums

# Sums are good to 1e-6; a variance that is a smaller part of the mean square than this is rounding.
_LOST_VARIANCE = 1e-6


TOGETHER = 4096
"""Figures of so many pairs are worked out at a time: a hundred times faster than of one, and in little memory."""

_Floats = npt.NDArray[np.float64]


@packed
@dataclass(frozen=True)
class Metrics:
    """Derived figures; a float is nan where it is undefined. Formulas: see `metrics_of`."""

    rel_l2: float
    worst_row: float
    """Largest row_rel_l2; its denominator is the row's own norm, but at least the norm of the median non-zero row, and
    (see `with_memory`) what the token's norm was before."""
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
    """Return the figures that follow from the statistics of one pair, as `all_metrics` does."""
    return all_metrics([stats])[0]


def all_metrics(pairs: Sequence[PairStats]) -> list[Metrics]:
    """Return the figures that follow from the statistics of each pair.

    x is golden, y actual, d = y - x, all over finite positions.

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
    with np.errstate(all="ignore"):  # what is not defined is nan, as the formulas say
        found = _figures(table(pairs, PairStats))
        _fill_row_figures(found, [pair.rows for pair in pairs])
    return from_table(Metrics, found)


def with_memory(metrics: Metrics, rows: RowSums, larger: npt.NDArray[np.float64], most: float) -> Metrics:
    """Return the figures with rows whose norms count as `larger` times what they are, shape (r,), as `rows`.

    So a row is held against the norm that its token had before. Rows that are off by more than `most` stay so.
    """
    found = table([metrics], Metrics).copy()
    _fill_row_figures(found, [rows], larger, most)
    return from_table(Metrics, found)[0]


def _figures(stats: Table) -> Table:
    """All figures but those of rows."""
    n = stats["n_finite"]
    xx, yy, xy, dd = (stats[f"sum_{name}"] for name in ("xx", "yy", "xy", "dd"))
    rel_l2 = _relative(np.sqrt(dd), np.sqrt(xx))
    scale = _share(xy, xx)
    left = _share(yy - scale * xy, xx)
    found = empty_table(Metrics, len(stats))
    found["rel_l2"] = rel_l2
    found["cosine"] = _correlation(xy, xx, yy)
    found["pcc"] = _pcc(stats)
    found["scale"] = scale
    found["residual"] = np.where(np.isnan(scale), math.nan, np.sqrt(np.where(left > 0.0, left, 0.0)))
    found["sg_rel"] = _relative(dd, xx + yy)
    # numpy's logarithm is not the same everywhere to the last bit
    found["snr_db"] = [-20 * math.log10(each) if each else math.inf for each in rel_l2.tolist()]
    found["linf_rel"] = _where_any(n, _relative(stats["max_abs_d"], _larger(abs(stats["min_x"]), abs(stats["max_x"]))))
    found["max_abs"] = _where_any(n, stats["max_abs_d"])
    found["mean_abs"] = _share(stats["sum_abs_d"], n)
    found["rms"] = np.sqrt(_share(dd, n))
    found["max_rel"] = _where_any(n, stats["max_rel_d"])
    found["mean_rel"] = _share(stats["sum_rel_d"], n)
    found["ratio_1k"] = _rest(stats["n_over_1k"], n)
    found["ratio_5k"] = _rest(stats["n_over_5k"], n)
    found["pass_rate"] = _rest(stats["n_over_tolerance"], n)
    found["max_ulp"] = stats["max_ulp"]
    found["mismatch_share"] = _rest(stats["n_equal"], stats["n"])
    return found


def _where_any(n: npt.NDArray[np.int64], values: _Floats) -> _Floats:
    return np.where(n != 0, values, math.nan)


def _share(part: _Floats, whole: npt.NDArray[np.number]) -> _Floats:
    """Return part / whole, nan when the whole is 0."""
    return np.where(whole != 0, part / whole, math.nan)


def _rest(count: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> _Floats:
    """The share of all but `count`; nan when the whole is 0 or the count is not known (-1)."""
    return np.where((whole != 0) & (count >= 0), 1 - count / whole, math.nan)


def _relative(error: _Floats, size: _Floats) -> _Floats:
    """Return error / size; where the size is 0, 0 for no error and infinity for any other."""
    return np.where(size == 0, np.where(error == 0, 0.0, math.inf), error / size)


def _larger(one: _Floats, other: _Floats) -> _Floats:
    """The larger of two; the first where one of them is nan."""
    return np.where(other > one, other, one)


def _correlation(xy: _Floats, xx: _Floats, yy: _Floats) -> _Floats:
    """Return xy / sqrt(xx yy) within [-1, 1]; nan when a side is 0."""
    return np.clip(_share(xy, np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0)


def _pcc(stats: Table) -> _Floats:
    """Pearson's correlation; nan when the variance of a side is lost in its mean square."""
    n, x, y, xx, yy = (stats[name] for name in ("n_finite", "sum_x", "sum_y", "sum_xx", "sum_yy"))
    variance_x = xx - x * (x / n)
    variance_y = yy - y * (y / n)
    known = (n != 0) & (variance_x > _LOST_VARIANCE * xx) & (variance_y > _LOST_VARIANCE * yy)
    return np.where(known, _correlation(stats["sum_xy"] - x * (y / n), variance_x, variance_y), math.nan)


def _fill_row_figures(
    found: Table, rows: Sequence[RowSums], larger: _Floats | None = None, most: float = math.inf
) -> None:
    """Fill in worst_row, worst_row_index, row_p50 and row_p99; pairs of as many rows are worked out together."""
    alike: dict[int, list[int]] = defaultdict(list)
    for place, each in enumerate(rows):
        alike[each.index.size].append(place)
    for count, places in alike.items():
        at = np.array(places)
        if count == 0:
            found["worst_row_index"][at] = -1
            for name in ("worst_row", "row_p50", "row_p99"):
                found[name][at] = math.nan
            continue
        sums = np.frombuffer(b"".join([rows[place].sums for place in places])).reshape(len(places), 2, count)
        sum_xx, sum_dd = sums[:, 0], sums[:, 1]
        relative = np.sqrt(sum_dd / np.maximum(sum_xx, _medians(sum_xx)[:, None]))
        relative[sum_dd == 0] = 0.0
        if larger is not None:
            relative = np.where(relative <= most, relative / larger, relative)
        worst = np.argmax(relative, axis=1)
        found["worst_row"][at] = relative[np.arange(len(places)), worst]
        found["worst_row_index"][at] = [
            rows[place].index[row] for place, row in zip(places, worst.tolist(), strict=True)
        ]
        # Values of rows, not between them: between 0 and infinity there is nothing.
        relative.sort(axis=1)
        unknown = np.isnan(relative[:, -1])
        for name, rank in zip(("row_p50", "row_p99"), _quantile_ranks(count), strict=True):
            found[name][at] = np.where(unknown, math.nan, relative[:, rank])


def _medians(sum_xx: _Floats) -> _Floats:
    """The median of each line's values that are above 0; 0 where none is."""
    ordered = np.sort(np.where(sum_xx > 0, sum_xx, math.inf), axis=1)
    count = (sum_xx > 0).sum(axis=1)
    line = np.arange(len(ordered))
    low = ordered[line, np.maximum(count - 1, 0) // 2]
    high = ordered[line, np.minimum(count // 2, sum_xx.shape[1] - 1)]
    return np.where(count > 0, np.where(count % 2 == 1, low, (low + high) / 2), 0.0)


@functools.cache
def _quantile_ranks(count: int) -> tuple[int, int]:
    """The places of the median and of the 99th percentile among sorted values."""
    median, high = np.quantile(np.arange(count), (0.5, 0.99), method="inverted_cdf").tolist()
    return int(median), int(high)

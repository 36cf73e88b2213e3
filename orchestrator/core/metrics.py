"""The figures that people read, derived from the statistics of a pair."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.compact import Table, compact, empty_table, from_table, table
from aclcmp.orchestrator.core.stats import PairStats, RowSums

# Sums are good to 1e-6; a variance that is a smaller part of the mean square than this is rounding.
_LOST_VARIANCE = 1e-6


TOGETHER = 4096
"""Figures of so many pairs are worked out at a time: a hundred times faster than of one, and in little memory."""

_Floats = npt.NDArray[np.float64]
Formula = Callable[[Table], Any]
"""From the statistics of many pairs, a table of PairStats, to one number for each."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """Description of a metric, and its formula."""

    label: str
    """Its name in words."""
    unit: str
    help: str
    """Its formula: x is golden, y actual, d = y - x, all over finite positions."""
    formula: Formula | None
    """None for what follows from sums by row: `_fill_row_figures` fills it in."""

    @property
    def words(self) -> str:
        """Its name in words, with its unit: "SNR (dB)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _rel_l2(sums: Table) -> _Floats:
    return _relative(np.sqrt(sums["sum_dd"]), np.sqrt(sums["sum_xx"]))


def _scale(sums: Table) -> _Floats:
    return _share(sums["sum_xy"], sums["sum_xx"])


def _residual(sums: Table) -> _Floats:
    scale = _scale(sums)
    left = _share(sums["sum_yy"] - scale * sums["sum_xy"], sums["sum_xx"])
    return np.where(np.isnan(scale), math.nan, np.sqrt(np.where(left > 0.0, left, 0.0)))


def _if_any(sums: Table, values: _Floats) -> _Floats:
    """Return the values, nan for pairs without a finite position."""
    return np.where(sums["n_finite"] != 0, values, math.nan)


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


def _pcc(sums: Table) -> _Floats:
    """Pearson's correlation; nan when the variance of a side is lost in its mean square."""
    n, x, y, xx, yy = (sums[name] for name in ("n_finite", "sum_x", "sum_y", "sum_xx", "sum_yy"))
    variance_x = xx - x * (x / n)
    variance_y = yy - y * (y / n)
    known = (n != 0) & (variance_x > _LOST_VARIANCE * xx) & (variance_y > _LOST_VARIANCE * yy)
    return np.where(known, _correlation(sums["sum_xy"] - x * (y / n), variance_x, variance_y), math.nan)


def _metric(label: str, help: str, formula: Formula | None = None, *, unit: str = "") -> Any:
    """Return the field of a metric."""
    return field(metadata={"info": MetricInfo(label, unit, help, formula)})


@compact
@dataclass(frozen=True)
class Metrics:
    """Derived figures; a float is nan where it is undefined.

    A field is all that there is of a metric: reports list what stands here, later ones behind earlier ones. A metric
    that is new in a version is the last one.
    """

    rel_l2: float = _metric(
        "relative L2",
        "sqrt(Σd² / Σx²); 0 when both are 0, infinite when only Σx² is (TTrace, AWS Neuron, torch.ao.ns)",
        _rel_l2,
    )
    worst_row: float = _metric(
        "worst row",
        "largest relative L2 of a row, its denominator being the row's own norm, but at least the norm of the median "
        "non-zero row, and (see `with_memory`) what the token's norm was before (AWS Neuron, by token; SGLang)",
    )
    worst_row_index: int = _metric("worst row at", "row group number of the worst row; -1 when there is none")
    row_p50: float = _metric("row median", "median over rows of their relative L2")
    row_p99: float = _metric("row p99", "99th percentile over rows of their relative L2")
    cosine: float = _metric(
        "cosine",
        "Σxy / sqrt(Σx² Σy²), clipped to [-1, 1] (msprobe, Polygraphy)",
        lambda sums: _correlation(sums["sum_xy"], sums["sum_xx"], sums["sum_yy"]),
    )
    pcc: float = _metric(
        "Pearson",
        "(nΣxy - ΣxΣy) / sqrt((nΣx² - (Σx)²)(nΣy² - (Σy)²)), clipped; undefined when a side is constant (ttnn)",
        _pcc,
    )
    scale: float = _metric("best scale", "α = Σxy / Σx²", _scale)
    residual: float = _metric(
        "after scaling",
        "sqrt(max(0, Σy² - α²Σx²) / Σx²): the error that is left after the best scale",
        _residual,
    )
    sg_rel: float = _metric(
        "SG relative",
        "Σd² / (Σx² + Σy²), about rel_l2² / 2; 0 when all are 0 (SGLang, DeepGEMM)",
        lambda sums: _relative(sums["sum_dd"], sums["sum_xx"] + sums["sum_yy"]),
    )
    snr_db: float = _metric(
        "SNR",
        "-20 log10(rel_l2) (torch.ao.ns, Polygraphy)",
        # numpy's logarithm is not the same everywhere to the last bit
        lambda sums: [-20 * math.log10(each) if each else math.inf for each in _rel_l2(sums).tolist()],
        unit="dB",
    )
    linf_rel: float = _metric(
        "max / max golden",
        "max|d| / max|x|; 0 when both are 0 (AWS Neuron)",
        lambda sums: _if_any(sums, _relative(sums["max_abs_d"], _larger(abs(sums["min_x"]), abs(sums["max_x"])))),
    )
    max_abs: float = _metric("max abs error", "max|d|", lambda sums: _if_any(sums, sums["max_abs_d"]))
    mean_abs: float = _metric("mean abs error", "Σ|d| / n", lambda sums: _share(sums["sum_abs_d"], sums["n_finite"]))
    rms: float = _metric("rms error", "sqrt(Σd² / n)", lambda sums: np.sqrt(_share(sums["sum_dd"], sums["n_finite"])))
    max_rel: float = _metric("max rel error", "max|d / x|", lambda sums: _if_any(sums, sums["max_rel_d"]))
    mean_rel: float = _metric(
        "mean rel error",
        "Σ|d / x| / n, positions with x = 0 adding nothing (msprobe)",
        lambda sums: _share(sums["sum_rel_d"], sums["n_finite"]),
    )
    ratio_1k: float = _metric(
        "within 1e-3", "share of |d| <= 1e-3 |x| (msprobe)", lambda sums: _rest(sums["n_over_1k"], sums["n_finite"])
    )
    ratio_5k: float = _metric(
        "within 5e-3", "share of |d| <= 5e-3 |x| (msprobe)", lambda sums: _rest(sums["n_over_5k"], sums["n_finite"])
    )
    pass_rate: float = _metric(
        "within tolerance",
        "share of |d| <= atol + rtol |x| (torch.testing, CANN)",
        lambda sums: _rest(sums["n_over_tolerance"], sums["n_finite"]),
    )
    max_ulp: int = _metric(
        "max ULP",
        "largest distance in representable values; -1 where it is not known",
        lambda sums: sums["max_ulp"],
    )
    mismatch_share: float = _metric(
        "share unequal", "share of positions that are not equal", lambda sums: _rest(sums["n_equal"], sums["n"])
    )


METRICS: dict[str, MetricInfo] = {each.name: each.metadata["info"] for each in fields(Metrics)}
"""All metrics by their names, in the order of the fields."""
LATER_METRICS = tuple(METRICS)[22:]
"""Those that came after version 0.1.0, whose 22 have places of their own in report.csv and in what `explain` says."""


def metrics_of(stats: PairStats) -> Metrics:
    """Return the figures that follow from the statistics of one pair, as `all_metrics` does."""
    return all_metrics([stats])[0]


def all_metrics(pairs: Sequence[PairStats]) -> list[Metrics]:
    """Return the figures that follow from the statistics of each pair.

    x is golden, y actual, d = y - x, all over finite positions. The formulas stand beside the fields of `Metrics`.
    """
    found = empty_table(Metrics, len(pairs))
    for name, values in figures_of(table(pairs, PairStats), METRICS).items():
        found[name] = values
    with np.errstate(all="ignore"):
        _fill_row_figures(found, [pair.rows for pair in pairs])
    return from_table(Metrics, found)


def with_memory(metrics: Metrics, rows: RowSums, larger: npt.NDArray[np.float64], most: float) -> Metrics:
    """Return the figures with rows whose norms count as `larger` times what they are, shape (r,), as `rows`.

    So a row is held against the norm that its token had before. Rows that are off by more than `most` stay so.
    """
    found = table([metrics], Metrics).copy()
    _fill_row_figures(found, [rows], larger, most)
    return from_table(Metrics, found)[0]


def figures_of(sums: Table, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named metrics that follow from sums over whole pairs; `sums` is a table of PairStats."""
    with np.errstate(all="ignore"):  # what is not defined is nan, as the formulas say
        return {name: formula(sums) for name in names if (formula := METRICS[name].formula) is not None}


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

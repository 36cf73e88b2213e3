"""Statistics of a pair from summaries of its tensors: bounds that are certain, and estimates.

With d = y - x, norms give bounds on |d| by the triangle inequality, over the whole and row by row, and sums give one
by Cauchy and Schwarz; random projections give an unbiased estimate (see `aclcmp.labeling.shard.tensor_summary`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.row_summaries import BUCKETS
from aclcmp.labeling.shard.tensor_summary import ROW_SKETCH_SIZE, SKETCH_SIZE, TensorSummary, rows_per_sketch
from aclcmp.orchestrator.core.stats import Basis, PairStats, RowSums

_CERTAIN = 1 + 3 * math.sqrt(2 / ROW_SKETCH_SIZE)
"""Largest factor by which an estimate by row exceeds the true value: three standard deviations."""
UNKNOWN = -1
"""Stands for a count that does not follow from summaries."""


def error_bar(basis: Basis) -> float | None:
    """Return two standard deviations of sqrt(sum_dd), relative to it: an upper bound for errors of any pattern.

    None where sum_dd is no estimate: exact for VALUES, a lower bound for NORMS.
    """
    size = {Basis.FINGERPRINT: SKETCH_SIZE, Basis.ROW_FINGERPRINT: BUCKETS}.get(basis)
    return None if size is None else math.sqrt(2 / size)


def stats_of_summaries(golden: TensorSummary, actual: TensorSummary, golden_dtype: str, actual_dtype: str) -> PairStats:
    """Return the statistics of a pair that follow from summaries of x (golden) and y (actual).

    - Equal digests of one dtype, or of any exact types, mean that all values are equal; every statistic follows.
    - sum_dd is, for FINGERPRINT (both have sketches), an estimate clipped to its bounds, and for NORMS the lower bound.
      sum_xy follows from it, and is nan for NORMS. rows.sum_dd is a lower bound by row, or by group
      of rows where the projections by row give a better one (less three standard deviations); a single row has the
      whole's.
    - Either all non-finite values lie in the same places, or their number in the same places is unknown (-1). Then the
      sums of one side include values that are not finite on the other.
    - Statistics of single elements are nan, their counts and indices -1. The largest error is known if golden is zero.

    Raises ValueError for different shapes or kinds (`DType.kind`).
    """
    exact = is_exact(golden_dtype, actual_dtype)
    x_shape, y_shape = ((side.n, side.row_group, side.row_squares.size) for side in (golden, actual))
    if x_shape != y_shape:
        raise ValueError(f"summaries of different shapes: (values, rows per group, groups) {x_shape} and {y_shape}")
    basis = Basis.FINGERPRINT if golden.sketch.size and actual.sketch.size else Basis.NORMS
    if golden.n == 0:
        return replace(PairStats.empty(), basis=basis)
    if golden.digest == actual.digest and (exact or golden_dtype == actual_dtype):
        return equal_stats(golden, actual, basis, exact)
    return _different(golden, actual, basis)


def is_exact(golden_dtype: str, actual_dtype: str) -> bool:
    """Tell whether values of two types are exact: integers or bool. Raises ValueError for types of different kinds."""
    kind = DTYPES[golden_dtype].kind
    if kind is not DTYPES[actual_dtype].kind:
        raise ValueError(f"{golden_dtype} cannot be compared with {actual_dtype}")
    return kind in (Kind.INT, Kind.BOOL)


def _different(x: TensorSummary, y: TensorSummary, basis: Basis) -> PairStats:
    with np.errstate(all="ignore"):  # squares that overflowed: the sums stay infinite or become nan
        row_dd = np.square(np.sqrt(y.row_squares) - np.sqrt(x.row_squares))
        sum_dd = _bound_below(x, y, float(row_dd.sum()))
        if basis is Basis.FINGERPRINT:
            estimate = float(np.square(y.sketch - x.sketch).sum())
            upper = float(np.square(np.sqrt(y.row_squares) + np.sqrt(x.row_squares)).sum())
            sum_dd = max(sum_dd, min(estimate, upper))
    if row_dd.size == 1:
        row_dd = np.array([sum_dd])
    stats = different_stats(x, y, basis, sum_dd, row_dd)
    if basis is Basis.FINGERPRINT and row_dd.size > 1:
        return replace(stats, rows=max(stats.rows, _sketched_rows(x, y, row_dd), key=_worst))
    return stats


def different_stats(
    x: TensorSummary, y: TensorSummary, basis: Basis, sum_dd: float, row_dd: npt.NDArray[np.float64]
) -> PairStats:
    """Return what follows from moments, and from the given sums of d^2: of the whole, and by row group."""
    stats = _stats(x, y, basis, sum_dd, row_dd)
    if basis is Basis.NORMS:
        stats = replace(stats, sum_xy=math.nan)
    if x.min == x.max == 0.0 and x.n_nonfinite == y.n_nonfinite == 0:
        return replace(stats, max_abs_d=max(abs(y.min), abs(y.max)))
    return stats


def _sketched_rows(x: TensorSummary, y: TensorSummary, row_dd: npt.NDArray[np.float64]) -> RowSums:
    """Return sums by group of rows; sum_dd is the lower bound that follows from projections and norms."""
    together = rows_per_sketch(row_dd.size)
    firsts = np.arange(0, row_dd.size, together)
    with np.errstate(all="ignore"):
        estimate = np.square(y.row_sketches - x.row_sketches).sum(axis=1) / _CERTAIN
        upper = np.add.reduceat(np.square(np.sqrt(y.row_squares) + np.sqrt(x.row_squares)), firsts)
        sum_dd = np.maximum(np.add.reduceat(row_dd, firsts), np.minimum(estimate, upper))
        sum_xx = np.add.reduceat(x.row_squares, firsts)
    return RowSums(x.row_group * together, np.arange(firsts.size), sum_xx, sum_dd)


def _worst(rows: RowSums) -> float:
    """Return the largest relative error of a row, squared."""
    floor = np.median(rows.sum_xx[rows.sum_xx > 0]) if rows.sum_xx.any() else 1.0
    with np.errstate(all="ignore"):
        return float(np.nan_to_num(rows.sum_dd / np.maximum(rows.sum_xx, floor)).max())


def equal_stats(x: TensorSummary, y: TensorSummary, basis: Basis, exact: bool) -> PairStats:
    """Return the statistics of tensors of which all values are equal, of exact types or not."""
    return replace(
        _stats(x, y, basis, 0.0, np.zeros(x.row_squares.size)),
        n_equal=x.n,
        sum_d=0.0,  # sums that overflowed have no difference
        sum_abs_d=0.0,
        max_abs_d=0.0,
        sum_rel_d=0.0,
        max_rel_d=0.0,
        n_over_1k=0,
        n_over_5k=0,
        n_over_tolerance=0,
        max_ulp=-1 if exact else 0,
    )


def _bound_below(x: TensorSummary, y: TensorSummary, of_rows: float) -> float:
    """Return the largest of three lower bounds of sum d^2: from norms by row, from sums, and from extremes."""
    n = x.n - max(x.n_nonfinite, y.n_nonfinite)
    if n == 0:
        return of_rows
    of_sums = (y.sum - x.sum) * ((y.sum - x.sum) / n)
    of_extremes = max(abs(y.min - x.min), abs(y.max - x.max))
    return max(of_rows, of_sums, of_extremes * of_extremes)


def _stats(
    x: TensorSummary, y: TensorSummary, basis: Basis, sum_dd: float, row_dd: npt.NDArray[np.float64]
) -> PairStats:
    """Return what follows from moments and the given sums of d^2; statistics of single elements are unknown."""
    in_common = x.n_nonfinite if x.places == y.places else UNKNOWN
    return PairStats(
        n=x.n,
        n_equal=UNKNOWN,
        n_finite=max(0, x.n - x.n_nonfinite - (0 if in_common >= 0 else y.n_nonfinite)),
        sum_x=x.sum,
        sum_y=y.sum,
        sum_xx=x.sum_squares,
        sum_yy=y.sum_squares,
        sum_xy=(x.sum_squares + y.sum_squares - sum_dd) / 2,
        sum_d=y.sum - x.sum,
        sum_dd=sum_dd,
        sum_abs_d=math.nan,
        max_abs_d=math.nan,
        max_abs_d_index=-1,
        max_abs_d_x=math.nan,
        max_abs_d_y=math.nan,
        min_x=x.min,
        max_x=x.max,
        min_y=y.min,
        max_y=y.max,
        sum_rel_d=math.nan,
        max_rel_d=math.nan,
        n_over_1k=UNKNOWN,
        n_over_5k=UNKNOWN,
        n_over_tolerance=UNKNOWN,
        max_ulp=-1,
        nan_x=x.nan,
        posinf_x=x.posinf,
        neginf_x=x.neginf,
        nan_y=y.nan,
        posinf_y=y.posinf,
        neginf_y=y.neginf,
        n_nonfinite_equal=in_common,
        mantissa_x=-1,
        mantissa_y=-1,
        rows=RowSums(x.row_group, np.arange(x.row_squares.size), x.row_squares, row_dd),
        basis=basis,
    )

"""Statistics of a pair from the summaries of its rows: bounds that are certain, and estimates, row by row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.row_summaries import BUCKETS, RowSummaries
from aclcmp.labeling.shard.tensor_summary import TensorSummary
from aclcmp.orchestrator.compare.summaries import different_stats, equal_stats, is_exact
from aclcmp.orchestrator.core.stats import Basis, PairStats

_CERTAIN = 1 + 6 * math.sqrt(2 / BUCKETS)
"""Factor by which an estimate of a row's sum of squares exceeds the true value once in some 100,000 rows.

It is that of a chi-squared distribution, which errors that are spread over the row have; others exceed it less often.
"""
_Float64 = npt.NDArray[np.float64]


def stats_of_row_summaries(
    golden: RowSummaries, actual: RowSummaries, golden_dtype: str, actual_dtype: str
) -> PairStats:
    """Return the statistics that follow from summaries of the same rows of x (golden) and y (actual).

    They are those of `stats_of_summaries`, but for sum_dd, which is the sum of each row's estimate, or of its lower
    bound where a side has no sketches. rows.sum_dd is a lower bound by row, rows are numbered from 0. Rows of equal
    digests have no error.

    Raises ValueError for different shapes or kinds (`DType.kind`).
    """
    exact = is_exact(golden_dtype, actual_dtype)
    if (len(golden.table), golden.width) != (len(actual.table), actual.width):
        sizes = ((len(side.table), side.width) for side in (golden, actual))
        raise ValueError("summaries of different shapes: (rows, values) {} and {}".format(*sizes))
    basis = Basis.ROW_FINGERPRINT if golden.sketches.size and actual.sketches.size else Basis.NORMS
    x, y = _together(golden), _together(actual)
    equal = (golden.digests == actual.digests).all(axis=1) & (exact or golden_dtype == actual_dtype)
    if equal.all():
        return equal_stats(x, y, basis, exact)
    with np.errstate(all="ignore"):  # squares that overflowed: the sums stay infinite or become nan
        row_dd = _bounds(golden, actual)
        sum_dd = row_dd
        if basis is Basis.ROW_FINGERPRINT:
            upper = np.square(np.sqrt(golden.squares) + np.sqrt(actual.squares))
            estimate = np.square(actual.sketches - golden.sketches).sum(axis=1)
            sum_dd = np.maximum(row_dd, np.minimum(estimate, upper))
            row_dd = np.maximum(row_dd, np.minimum(estimate / _CERTAIN, upper))
        sum_dd, row_dd = (np.where(equal, 0.0, each) for each in (sum_dd, row_dd))
    return different_stats(x, y, basis, float(sum_dd.sum()), row_dd)


def _bounds(x: RowSummaries, y: RowSummaries) -> _Float64:
    """Return the largest of three lower bounds of each row's sum d^2: from norms, from sums, and from extremes."""
    norms = np.square(np.sqrt(y.squares) - np.sqrt(x.squares))
    n = x.width - np.maximum(x.counts.sum(axis=1), y.counts.sum(axis=1))
    sums = np.square(y.sums - x.sums) / np.maximum(n, 1)
    extremes = np.square(y.extremes - x.extremes).max(axis=1)
    found: _Float64 = np.where(n > 0, np.maximum(norms, np.maximum(sums, extremes)), norms)
    return found


def _together(rows: RowSummaries) -> TensorSummary:
    """Return the moments and digests of all rows as those of one tensor, without a sketch."""
    nan, posinf, neginf = rows.counts.sum(axis=0).astype(int).tolist()
    with np.errstate(all="ignore"):
        total, squares = float(rows.sums.sum()), float(rows.squares.sum())
    return TensorSummary(
        n=rows.n,
        nan=nan,
        posinf=posinf,
        neginf=neginf,
        sum=total,
        sum_squares=squares,
        min=float(rows.extremes[:, 0].min()),
        max=float(rows.extremes[:, 1].max()),
        digest=rows.digests.tobytes(),
        places=rows.places.tobytes(),
        row_group=1,
        row_squares=rows.squares,
        sketch=np.empty(0),
        row_sketches=np.empty((0, 0)),
    )

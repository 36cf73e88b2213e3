"""What is known of one pair after one pass over its bytes: sums, extremes, counts, and sums by row.

x is the golden side, y the actual one, d = y - x, all in float64. Statistics of disjoint regions of the same label add
up with `merge`. Complex tensors are compared as their real and imaginary parts, which are then the elements counted.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

_Float64 = npt.NDArray[np.float64]


def _sum_by(place: npt.NDArray[np.intp], first: _Float64, second: _Float64) -> _Float64:
    """Sum what two arrays hold for each place."""
    return np.bincount(place, np.concatenate([first, second])).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class RowSums:
    """Sums by row (token): a row is the last axis of the whole tensor; a 0-d or 1-d tensor is one row.

    Whole tensors of more than 65,536 rows are summed in groups of `group` consecutive rows (a power of two that follows
    from the whole's shape alone, so that all regions of a label agree).
    """

    group: int
    index: npt.NDArray[np.int64]
    """Sorted numbers of the row groups that were seen, shape (r,)."""
    sum_xx: _Float64
    """Sum of x^2 by row group, shape (r,)."""
    sum_dd: _Float64
    """Sum of d^2 by row group, shape (r,)."""

    @staticmethod
    def empty(group: int = 0) -> RowSums:
        """Return the sums of no rows; group 0 merges with any."""
        return RowSums(group, np.empty(0, np.int64), np.empty(0), np.empty(0))

    def merge(self, other: RowSums) -> RowSums:
        """Return the sums over both; they must come from disjoint regions of one whole tensor."""
        if self.index.size and other.index.size and self.group != other.group:
            raise ValueError(f"row groups of {self.group} and of {other.group} rows: not parts of one tensor")
        group = max(self.group, other.group)
        if np.array_equal(self.index, other.index):
            return RowSums(group, self.index, self.sum_xx + other.sum_xx, self.sum_dd + other.sum_dd)
        for one, two in ((self, other), (other, self)):
            if one.index.size == 0 or two.index.size == 0 or one.index[-1] < two.index[0]:
                index = np.concatenate([one.index, two.index])
                sum_xx = np.concatenate([one.sum_xx, two.sum_xx])
                return RowSums(group, index, sum_xx, np.concatenate([one.sum_dd, two.sum_dd]))
        index, place = np.unique(np.concatenate([self.index, other.index]), return_inverse=True)
        sum_xx = _sum_by(place, self.sum_xx, other.sum_xx)
        sum_dd = _sum_by(place, self.sum_dd, other.sum_dd)
        return RowSums(group, index, sum_xx, sum_dd)


class Basis(str, Enum):
    """What the statistics of a pair were taken from, the best first."""

    VALUES = "values"
    """Both tensors, element by element."""
    FINGERPRINT = "fingerprint"
    """Random projections of both: sum_dd is an estimate (see `compare.summaries`), and what follows from it."""
    NORMS = "norms"
    """Moments and norms by row of both: sum_dd is a lower bound."""


@dataclass(frozen=True, slots=True, eq=False)
class PairStats:
    """Mergeable statistics of one pair. Sums and extremes run over positions where both sides are finite.

    Where `basis` is not VALUES, what single elements would tell is nan (counts: -1).
    """

    n: int
    n_equal: int
    """Positions with the same value and the same sign of zero, or the same non-finite class (NaN, +inf, -inf)."""
    n_finite: int
    sum_x: float
    sum_y: float
    sum_xx: float
    sum_yy: float
    sum_xy: float
    sum_d: float
    sum_dd: float
    sum_abs_d: float
    max_abs_d: float
    """Largest |d|; 0.0 when n_finite is 0."""
    max_abs_d_index: int
    """Flat index, in the whole tensor, of the first position that has max_abs_d; -1 when n_finite is 0."""
    max_abs_d_x: float
    max_abs_d_y: float
    min_x: float
    """+inf when n_finite is 0; max_x is then -inf; likewise for y."""
    max_x: float
    min_y: float
    max_y: float
    sum_rel_d: float
    """Sum of |d / x| over positions with x != 0."""
    max_rel_d: float
    n_over_1k: int
    """Positions with |d| > 1e-3 |x|."""
    n_over_5k: int
    """Positions with |d| > 5e-3 |x|."""
    n_over_tolerance: int
    """Positions with |d| > atol + rtol |x|, with the operator-level tolerance of the narrower dtype."""
    max_ulp: int
    """Largest distance in representable values; -1 when the sides' dtypes differ or are not binary floats."""
    nan_x: int
    posinf_x: int
    neginf_x: int
    nan_y: int
    posinf_y: int
    neginf_y: int
    n_nonfinite_equal: int
    """Positions where both sides are non-finite in the same way (NaN and NaN, or infinities of one sign)."""
    rows: RowSums
    basis: Basis = Basis.VALUES

    @staticmethod
    def empty() -> PairStats:
        """Return the statistics of no elements, which merge with any."""
        inf = math.inf
        return PairStats(
            n=0,
            n_equal=0,
            n_finite=0,
            sum_x=0.0,
            sum_y=0.0,
            sum_xx=0.0,
            sum_yy=0.0,
            sum_xy=0.0,
            sum_d=0.0,
            sum_dd=0.0,
            sum_abs_d=0.0,
            max_abs_d=0.0,
            max_abs_d_index=-1,
            max_abs_d_x=0.0,
            max_abs_d_y=0.0,
            min_x=inf,
            max_x=-inf,
            min_y=inf,
            max_y=-inf,
            sum_rel_d=0.0,
            max_rel_d=0.0,
            n_over_1k=0,
            n_over_5k=0,
            n_over_tolerance=0,
            max_ulp=-1,
            nan_x=0,
            posinf_x=0,
            neginf_x=0,
            nan_y=0,
            posinf_y=0,
            neginf_y=0,
            n_nonfinite_equal=0,
            rows=RowSums.empty(),
        )

    def merge(self, other: PairStats) -> PairStats:
        """Return the statistics over both; they must come from disjoint regions of one pair of whole tensors."""
        merged = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        for name in _LARGEST:
            merged[name] = max(getattr(self, name), getattr(other, name))
        for name in _SMALLEST:
            merged[name] = min(getattr(self, name), getattr(other, name))
        worst = max(self, other, key=PairStats._rank_of_max_abs_d)
        for name in _OF_MAX_ABS_D:
            merged[name] = getattr(worst, name)
        basis = max(self.basis, other.basis, key=list(Basis).index)
        return PairStats(rows=self.rows.merge(other.rows), basis=basis, **merged)

    def _rank_of_max_abs_d(self) -> tuple[bool, float, int]:
        return self.n_finite > 0, self.max_abs_d, -self.max_abs_d_index


_LARGEST = ("max_x", "max_y", "max_rel_d", "max_ulp")
_SMALLEST = ("min_x", "min_y")
_OF_MAX_ABS_D = ("max_abs_d", "max_abs_d_index", "max_abs_d_x", "max_abs_d_y")
_ADDED = tuple(
    field.name
    for field in dataclasses.fields(PairStats)
    if field.name not in {*_LARGEST, *_SMALLEST, *_OF_MAX_ABS_D, "rows", "basis"}
)

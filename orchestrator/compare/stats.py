"""What is known of one pair after one pass over its bytes: sums, extremes, counts, and sums by row.

x is the golden side, y the actual one, d = y - x, all in float64. Statistics of disjoint regions of the same label add
up with `merge`. Complex tensors are compared as their real and imaginary parts, which are then the elements counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class RowSums:
    """Sums by row (token): a row is the last axis of the whole tensor; a 0-d or 1-d tensor is one row.

    Whole tensors of more than 65,536 rows are summed in groups of `group` consecutive rows (a power of two that follows
    from the whole's shape alone, so that all regions of a label agree).
    """

    group: int
    index: npt.NDArray[np.int64]
    """Sorted numbers of the row groups that were seen, shape (r,)."""
    sum_xx: npt.NDArray[np.float64]
    """Sum of x^2 by row group, shape (r,)."""
    sum_dd: npt.NDArray[np.float64]
    """Sum of d^2 by row group, shape (r,)."""


@dataclass(frozen=True, slots=True, eq=False)
class PairStats:
    """Mergeable statistics of one pair. Sums and extremes run over positions where both sides are finite."""

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

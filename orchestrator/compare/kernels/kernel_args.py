"""Arguments and totals of the kernels, as tuples that compiled code understands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.kernels.strides import Walk

_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]


class KernelOperand(NamedTuple):
    """One operand: its stored bytes, the code of its element type, and the walk over the compared region."""

    data: npt.NDArray[np.uint8]
    itemsize: int
    code: int
    walk: Walk


class Rows(NamedTuple):
    """Sums by row. Rows are `width` elements long, and `walk` gives their numbers in the global tensor.

    Group g sums the global tensor's rows g * group .. (g + 1) * group - 1.
    """

    width: int
    group: int
    walk: Walk
    seen: npt.NDArray[np.bool_]
    sum_xx: _Float64
    sum_dd: _Float64


class KernelLimits(NamedTuple):
    """Tolerance of one element, |d| <= atol + rtol |x|, and the values that stand for -inf."""

    rtol: float
    atol: float
    lowest_x: float
    """Values of x up to this one count as -inf in a mask, where y's are up to `lowest_y`."""
    lowest_y: float


class Totals(NamedTuple):
    """Totals of a scan, in arrays that it updates in place."""

    sums: _Float64
    """sum_x, sum_y, sum_xx, sum_yy, sum_xy, sum_d, sum_dd, sum_abs_d, sum_rel_d."""
    extremes: _Float64
    """min_x, max_x, min_y, max_y, max_rel_d, max_abs_d (-1 before the first finite pair), and x and y at max_abs_d."""
    counts: _Int64
    """n_equal, n_finite, n_over_1k, n_over_5k, n_over_tolerance, nan_x, posinf_x, neginf_x, nan_y, posinf_y, neginf_y,
    n_nonfinite_equal."""
    position: _Int64
    """Element number of max_abs_d within the region, shape (1,)."""
    distance: npt.NDArray[np.uint64]
    """Largest distance of two ordinals, shape (1,)."""
    bits: _Int64
    """All bits that are set in any value of x and of y, as float32 or float64, shape (2,)."""

    @staticmethod
    def zero() -> Totals:
        """Return the totals of nothing."""
        infinity = np.inf
        extremes = np.array([infinity, -infinity, infinity, -infinity, 0.0, -1.0, 0.0, 0.0])
        return Totals(
            np.zeros(9),
            extremes,
            np.zeros(12, np.int64),
            np.full(1, -1, np.int64),
            np.zeros(1, np.uint64),
            np.zeros(2, np.int64),
        )

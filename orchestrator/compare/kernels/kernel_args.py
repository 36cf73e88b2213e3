"""Arguments and totals of the kernels, in the form of kernels.c."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_uint64, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.element_values import float8_table
from aclcmp.orchestrator.compare.kernels.strides import Walk


class _Walk(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("run", "base", "levels")),
        *((name, c_void_p) for name in ("sizes", "strides", "starts")),
    )

    def __init__(self, walk: Walk) -> None:
        levels = c_int64 * len(walk.levels)
        self._kept = levels(*(size for size, _ in walk.levels)), levels(*(stride for _, stride in walk.levels))
        super().__init__(walk.run, walk.base, len(walk.levels), *map(ctypes.addressof, self._kept))


@lru_cache(maxsize=4096)
def _pack(walk: Walk) -> _Walk:
    """Return a walk in the kernels' form; what refers to its addresses must keep it."""
    return _Walk(walk)


class KernelOperand(ctypes.Structure):
    """One operand: its stored bytes, the code of its element type, and the walk over the compared region."""

    _fields_ = (
        ("_data", c_void_p),
        ("itemsize", c_int64),
        ("code", c_int64),
        ("_float8_values", c_void_p),
        ("_walk", _Walk),
    )
    itemsize: int
    code: int

    def __init__(self, data: npt.NDArray[np.uint8], itemsize: int, code: int, walk: Walk) -> None:
        """Take the whole stored tensor as flat bytes, and a walk. Raises ValueError unless it stays within them."""
        if walk.last >= data.size // itemsize:
            raise ValueError(f"a region ends at element {walk.last} of a tensor of {data.size // itemsize}")
        self.walk = walk
        self._kept = data, _pack(walk)  # what the addresses point to must live as long
        super().__init__(_address(data), itemsize, code, float8_table(code), self._kept[1])


class ScatteredOperand(KernelOperand):
    """An operand whose runs of `run` elements lie anywhere in memory."""

    def __init__(self, addresses: npt.NDArray[np.int64], run: int, itemsize: int, code: int) -> None:
        """Take the address of each run, all of them a multiple of `itemsize`; the caller keeps the memory alive."""
        starts = np.append(addresses // itemsize, 0)  # the kernels look up the run behind the last one too
        walk = _Walk(Walk(run, 0))
        walk.starts = _address(starts)
        self._kept = starts, walk
        ctypes.Structure.__init__(self, None, itemsize, code, float8_table(code), walk)


class Rows(ctypes.Structure):
    """Sums by row. Rows are `width` elements long, and `walk` gives their numbers in the global tensor.

    Group g sums the global tensor's rows g * group .. (g + 1) * group - 1; `group` is a power of two.
    """

    _fields_ = (
        ("_width", c_int64),
        ("_group_bits", c_int64),
        ("_walk", _Walk),
        ("_seen", c_void_p),
        ("_sum_xx", c_void_p),
        ("_sum_dd", c_void_p),
    )

    def __init__(self, width: int, group: int, walk: Walk, groups: int) -> None:
        """Make the sums of `groups` groups, all zero. Raises ValueError unless all rows belong to one of them."""
        if walk.last // group >= groups:
            raise ValueError(f"row {walk.last} belongs to none of {groups} groups of {group}")
        self.group, self._walk_kept = group, _pack(walk)
        self.seen, self.sum_xx, self.sum_dd = np.zeros(groups, np.bool_), np.zeros(groups), np.zeros(groups)
        sums = map(_address, (self.seen, self.sum_xx, self.sum_dd))
        super().__init__(width, group.bit_length() - 1, self._walk_kept, *sums)


class KernelLimits(ctypes.Structure):
    """Tolerance of one element, |d| <= atol + rtol |x|, and the values that stand for -inf.

    Values of x up to `lowest_x` count as -inf in a mask, where y's are up to `lowest_y`.
    """

    _fields_ = tuple((name, c_double) for name in ("rtol", "atol", "lowest_x", "lowest_y"))


class ErrorSums(ctypes.Structure):
    """Sums of squares by channel, and counts of errors by size, of float64 values; `sum_errors` adds to them.

    A row has `parts` values for each of its channels, of which the first is number `first`. Channel i belongs to group
    i // `group`, a power of two; `sum_xx` and `sum_dd` have one element for each of `groups` groups. `counts` are of
    the errors that are not 0, by the first 12 bits of d / `rms` (sign and exponent), shape (4096,).
    """

    _fields_ = (
        *((name, c_int64) for name in ("_row", "_parts", "_first", "_group_bits")),
        ("_rms", c_double),
        *((name, c_void_p) for name in ("_sum_xx", "_sum_dd", "_counts")),
    )

    def __init__(self, channels: int, parts: int, first: int, group: int, groups: int, rms: float) -> None:
        """Make sums that are all zero."""
        self.sum_xx, self.sum_dd, self.counts = np.zeros(groups), np.zeros(groups), np.zeros(1 << 12, np.int64)
        arrays = map(_address, (self.sum_xx, self.sum_dd, self.counts))
        super().__init__(channels * parts, parts, first, group.bit_length() - 1, rms, *arrays)


class Totals(ctypes.Structure):
    """Totals of a scan, which updates them in place.

    `sums`: sum_x, sum_y, sum_xx, sum_yy, sum_xy, sum_d, sum_dd, sum_abs_d, sum_rel_d.
    `extremes`: min_x, max_x, min_y, max_y, max_rel_d, max_abs_d (-1 before the first finite pair), x and y there.
    `counts`: n_equal, n_finite, n_over_1k, n_over_5k, n_over_tolerance, nan_x, posinf_x, neginf_x, nan_y, posinf_y,
    neginf_y, n_nonfinite_equal. `position`: element number of max_abs_d within the region. `distance`: largest distance
    of two ordinals. `bits`: their lowest one is the lowest that is set in any value of x and of y, as float32 or
    float64.
    """

    _fields_ = (
        ("sums", c_double * 9),
        ("extremes", c_double * 8),
        ("counts", c_int64 * 12),
        ("position", c_int64),
        ("distance", c_uint64),
        ("bits", c_int64 * 2),
    )
    sums: ctypes.Array[c_double]
    extremes: ctypes.Array[c_double]
    counts: ctypes.Array[c_int64]
    position: int
    distance: int
    bits: ctypes.Array[c_int64]

    @staticmethod
    def zero() -> Totals:
        """Return the totals of nothing."""
        infinity = float("inf")
        return Totals(extremes=(infinity, -infinity, infinity, -infinity, 0.0, -1.0, 0.0, 0.0), position=-1)


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address

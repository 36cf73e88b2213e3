"""The one pass over a pair's bytes, in C: blocks of both regions are decoded, reduced, and added up in float64.

The calls release the GIL.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.kernels.kernel_args import ErrorSums, KernelLimits, KernelOperand, Rows, Totals
from aclcmp.orchestrator.compare.kernels.load_library import load_library

BLOCK = 1024
"""Most elements that are reduced at a time."""


def scan32(
    x: KernelOperand,
    y: KernelOperand,
    rows: Rows,
    limits: KernelLimits,
    scale: float,
    start: int,
    stop: int,
    totals: Totals,
) -> None:
    """Add to `totals` and `rows` the elements start <= i < stop of a pair whose values float32 holds exactly.

    `totals.distance` is that of ordinals of float32, after multiplication by `scale`. A power of two that makes a
    narrower type's subnormals those of float32 makes its representable values equally far apart.
    """
    span = ctypes.c_double(scale), ctypes.c_int64(start), ctypes.c_int64(stop)
    load_library().scan32(*map(ctypes.byref, (x, y, rows, limits)), *span, ctypes.byref(totals))


def scan64(
    x: KernelOperand,
    y: KernelOperand,
    rows: Rows,
    limits: KernelLimits,
    integers: bool,
    start: int,
    stop: int,
    totals: Totals,
) -> None:
    """Add to `totals` and `rows` the elements start <= i < stop of any pair; `integers` is True for exact types."""
    span = ctypes.c_bool(integers), ctypes.c_int64(start), ctypes.c_int64(stop)
    load_library().scan64(*map(ctypes.byref, (x, y, rows, limits)), *span, ctypes.byref(totals))


def add_up(
    operand: KernelOperand, start: int, stop: int, exact: bool, first: bool, sums: npt.NDArray[np.int64]
) -> None:
    """Write (`first`) or add the region's elements start <= i < stop to `sums`: int64 if `exact`, else float64's bits.

    Integers beyond int64 keep their lowest 64 bits, which are those of uint64.
    """
    span = ctypes.c_int64(start), ctypes.c_int64(stop), ctypes.c_bool(exact), ctypes.c_bool(first)
    load_library().add_up(ctypes.byref(operand), *span, ctypes.c_void_p(sums.ctypes.data))


def sum_errors(
    x: KernelOperand, y: KernelOperand, start: int, stop: int, lowest: tuple[float, float], sums: ErrorSums
) -> int:
    """Add the elements from `start` on to `sums`, as float64; return the number of the first that is not added.

    That is `stop`, or the first of a block of BLOCK elements with a value that is not finite, or up to the lowest one
    of x or of y.
    """
    span = ctypes.c_int64(start), ctypes.c_int64(stop), *map(ctypes.c_double, lowest)
    added: int = load_library().sum_errors(ctypes.byref(x), ctypes.byref(y), *span, ctypes.byref(sums))
    return added

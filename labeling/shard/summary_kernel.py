"""The comparison kernels' library in the labeled process: it summarises tensors there if it is built already."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.element_codes import CODES
from aclcmp.labeling.shard.element_values import float8_table
from aclcmp.labeling.shard.kernel_library import find_library


class Sums(ctypes.Structure):
    """What is known of a tensor's flat elements, in the form of kernels.c; `summarise` adds to it."""

    _fields_ = (
        *((name, c_double) for name in ("sum", "min", "max", "lowest")),
        ("counts", c_int64 * 3),
        *((name, c_int64) for name in ("stretch", "together")),
        *((name, c_void_p) for name in ("row_squares", "sketch", "row_sketches")),
        ("odd_count", c_int64),
        ("odd", c_void_p),
    )
    sum: float
    min: float
    max: float
    counts: ctypes.Array[c_int64]
    odd_count: int


@cache
def summary_library() -> ctypes.CDLL | None:
    """Return the library of the kernels if it is built already: nothing is compiled in the process of a model."""
    library = find_library()
    if library is not None:
        library.summarise.argtypes = [c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p]
        library.summarise.restype = None
    return library


def add_to_sums(
    library: Any,
    bits: npt.NDArray[np.uint8],
    dtype: str,
    start: int,
    stop: int,
    words: npt.NDArray[np.uint64] | None,
    sums: Sums,
) -> None:
    """Add the values start <= i < stop of a tensor, whose bytes `bits` are; without random words no projection.

    `sums.odd` must have room for stop - start numbers: `odd_count` of them tell what was not finite, each as
    4 i + kind. The call releases the GIL.
    """
    code = CODES[dtype]
    address = None if words is None else words.ctypes.data
    sums.odd_count = 0
    itemsize = bits.size // (stop - start)
    library.summarise(
        bits.ctypes.data, itemsize, code, float8_table(code), start, stop, address, ctypes.addressof(sums)
    )

"""The comparison kernels' library in the labeled process: it summarises tensors there if it is built already."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_double, c_int64, c_uint64, c_void_p
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.digest import keys
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.element_codes import CODES
from aclcmp.labeling.shard.element_values import float8_table
from aclcmp.labeling.shard.kernel_library import find_library


class Sums(ctypes.Structure):
    """What is known of a tensor's flat elements, in the form of kernels.c; `summarise` adds to it."""

    _fields_ = (
        *((name, c_double) for name in ("sum", "min", "max", "lowest")),
        ("counts", c_int64 * 3),
        ("digest", c_uint64 * 2),
        ("places", c_uint64),
        ("is_beyond", c_bool),
        ("keys", c_void_p),
        *((name, c_int64) for name in ("stretch", "together")),
        *((name, c_void_p) for name in ("row_squares", "sketch", "row_sketches")),
    )
    sum: float
    min: float
    max: float
    counts: ctypes.Array[c_int64]
    digest: ctypes.Array[c_uint64]
    places: int
    is_beyond: bool


@cache
def summary_library() -> ctypes.CDLL | None:
    """Return the library of the kernels if it is built already: nothing is compiled in the process of a model."""
    library = find_library()
    if library is not None:
        library.summarise.argtypes = [c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p]
        library.summarise.restype = None
        library.summarise_rows.argtypes = [
            *(c_void_p, c_int64, c_int64, c_void_p),
            *(c_int64, c_int64, c_double),
            *(c_void_p, c_void_p, c_void_p),
        ]
        library.summarise_rows.restype = None
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

    The call releases the GIL.
    """
    code = CODES[dtype]
    address = None if words is None else words.ctypes.data
    itemsize = bits.size // (stop - start)
    library.summarise(
        bits.ctypes.data, itemsize, code, float8_table(code), start, stop, address, ctypes.addressof(sums)
    )


def fill_row_summaries(
    library: Any,
    bits: npt.NDArray[np.uint8],
    dtype: str,
    width: int,
    words: npt.NDArray[np.uint64] | None,
    table: npt.NDArray[np.float64],
) -> None:
    """Write all but the first number of each row's summary to `table`; without random words no projection.

    `bits` are the bytes of rows of `width` values. The call releases the GIL.
    """
    code = CODES[dtype]
    address = None if words is None else words.ctypes.data
    itemsize = bits.size // (len(table) * width)
    library.summarise_rows(
        bits.ctypes.data,
        itemsize,
        code,
        float8_table(code),
        len(table),
        width,
        DTYPES[dtype].lowest,
        keys().ctypes.data,
        address,
        table.ctypes.data,
    )

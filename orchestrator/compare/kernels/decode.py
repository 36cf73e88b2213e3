"""Decode stored bits to float32 or float64 values, one block at a time.

A kernel gets each tensor as flat bytes and a code for its element type, so that one compiled kernel serves all types.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.element_values import FLOAT8_VALUES
from aclcmp.orchestrator.compare.kernels.jit import jit

_Bytes = npt.NDArray[np.uint8]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

FLOAT64, FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2, 3
INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64 = 4, 5, 6, 7, 8, 9, 10, 11
FLOAT8 = 12  # and the codes after it: FLOAT8 + row of FLOAT8_VALUES

CODES = {
    "float64": FLOAT64,
    "float32": FLOAT32,
    "float16": FLOAT16,
    "bfloat16": BFLOAT16,
    "float8_e4m3fn": FLOAT8,
    "float8_e4m3fnuz": FLOAT8 + 1,
    "float8_e5m2": FLOAT8 + 2,
    "float8_e5m2fnuz": FLOAT8 + 3,
    "float8_e8m0fnu": FLOAT8 + 4,
    "int8": INT8,
    "int16": INT16,
    "int32": INT32,
    "int64": INT64,
    "uint8": UINT8,
    "uint16": UINT16,
    "uint32": UINT32,
    "uint64": UINT64,
    "bool": UINT8,
    "complex32": FLOAT16,
    "complex64": FLOAT32,
    "complex128": FLOAT64,
}
"""Code of each element type, or of the components of a complex one, by torch's name."""


@jit
def decode32(data: _Bytes, code: int, scratch: _Float32) -> _Float32:
    """Return the float32 values of the elements in `data`: float32 as a view of it, all else in `scratch`."""
    if code == FLOAT32:
        return data.view(np.float32)
    bits = scratch.view(np.uint32)
    if code == BFLOAT16:
        halves = data.view(np.uint16)
        for i in range(scratch.size):
            bits[i] = np.uint32(halves[i]) << np.uint32(16)
    elif code == FLOAT16:
        halves = data.view(np.uint16)
        for i in range(scratch.size):
            half = np.uint32(halves[i])
            magnitude = np.uint32(np.uint32(half & np.uint32(0x7FFF)) << np.uint32(13))
            # The exponent's bias differs by 112; the product is exact, also for float16's subnormals.
            value = np.float32(magnitude.view(np.float32) * np.float32(2.0**112)).view(np.uint32)
            if magnitude >= np.uint32(0x0F800000):  # infinity and NaN
                value = np.uint32(magnitude | np.uint32(0x7F800000))
            bits[i] = np.uint32(value | np.uint32(np.uint32(half & np.uint32(0x8000)) << np.uint32(16)))
    else:
        table = FLOAT8_VALUES[code - FLOAT8]
        for i in range(scratch.size):
            scratch[i] = table[data[i]]
    return scratch


@jit
def decode64(data: _Bytes, code: int, scratch: _Float64, scratch32: _Float32, exact: _Int64) -> _Float64:
    """Return the float64 values of the elements in `data`: float64 as a view of it, all else in `scratch`.

    Integers (for uint64 their bits) are also written to `exact`.
    """
    if code == FLOAT64:
        return data.view(np.float64)
    if code == UINT64:
        exact[:] = data.view(np.int64)
        scratch[:] = data.view(np.uint64)
    elif INT8 <= code < UINT64:
        if code == INT8:
            exact[:] = data.view(np.int8)
        elif code == INT16:
            exact[:] = data.view(np.int16)
        elif code == INT32:
            exact[:] = data.view(np.int32)
        elif code == INT64:
            exact[:] = data.view(np.int64)
        elif code == UINT8:
            exact[:] = data
        elif code == UINT16:
            exact[:] = data.view(np.uint16)
        else:
            exact[:] = data.view(np.uint32)
        scratch[:] = exact
    else:
        scratch[:] = decode32(data, code, scratch32)
    return scratch

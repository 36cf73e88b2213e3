"""Conversion of stored bits of any element type to numbers, in plain numpy: the user's process compiles nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard import element_codes
from aclcmp.labeling.shard.dtypes import DTYPES, Kind

_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
"""The types of the rows of FLOAT8_VALUES."""


def _float8(exponent_bits: int, bias: int) -> _Float64:
    """Return the values of all bytes of a sign-magnitude float8, shape (256,), without its special values."""
    byte = np.arange(256)
    mantissa_bits = 7 - exponent_bits
    exponent = (byte & 127) >> mantissa_bits
    mantissa = (byte & ((1 << mantissa_bits) - 1)) + (np.minimum(exponent, 1) << mantissa_bits)
    value = np.ldexp(mantissa.astype(np.float64), np.maximum(exponent, 1) - bias - mantissa_bits)
    signed: _Float64 = np.where(byte < 128, value, -value)
    return signed


def _float8_values() -> _Float32:
    e4m3fn, e4m3fnuz = _float8(4, 7), _float8(4, 8)
    e5m2, e5m2fnuz = _float8(5, 15), _float8(5, 16)
    e4m3fn[[0x7F, 0xFF]] = np.nan
    e5m2[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    e5m2[[0x7C, 0xFC]] = np.inf, -np.inf
    e4m3fnuz[0x80] = e5m2fnuz[0x80] = np.nan
    e8m0fnu = np.ldexp(1.0, np.arange(256) - 127)
    e8m0fnu[0xFF] = np.nan
    return np.stack([e4m3fn, e4m3fnuz, e5m2, e5m2fnuz, e8m0fnu]).astype(np.float32)


FLOAT8_VALUES = _float8_values()
"""Values of the 256 bytes of the types of FLOAT8, shape (5, 256), in this order."""


def float8_table(code: int) -> int | None:
    """Return the address of the values of a float8's bytes, by its code as in kernels.c; None for other types."""
    row = code - element_codes.FLOAT8
    return FLOAT8_VALUES[row].ctypes.data if row >= 0 else None


def components_of(dtype: str) -> int:
    """Return the number of components of an element: 2 for complex types (real and imaginary part), else 1."""
    return 2 if DTYPES[dtype].kind is Kind.COMPLEX else 1


def decode(bits: npt.NDArray[np.uint8], dtype: str) -> _Float32 | _Float64:
    """Return the values of the elements in `bits`, flat bytes of `dtype`, as flat numbers, two for a complex element.

    float64 for float64, complex128, integers (rounded beyond 2**53) and bool; float32, without loss, for all else.
    float32 and float64 are views of `bits`.
    """
    stored = DTYPES[dtype]
    if dtype in FLOAT8:
        values: _Float32 = FLOAT8_VALUES[FLOAT8.index(dtype)].take(bits)
        return values
    if dtype == "bfloat16":
        return (bits.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if stored.kind is Kind.BOOL:
        return bits.astype(np.float64)
    if stored.kind is Kind.INT:
        return bits.view(stored.memory).astype(np.float64)
    itemsize = stored.itemsize // components_of(dtype)
    if itemsize == 8:
        return bits.view("<f8").astype(np.float64, copy=False)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return bits.view(f"<f{itemsize}").astype(np.float32, copy=False)

"""Codes of element types, as in kernels.c: a kernel gets each tensor as flat bytes and a code."""

from __future__ import annotations

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

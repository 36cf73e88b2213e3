"""Rounding float64 values to narrower element types, in plain numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.element_values import FLOAT8, FLOAT8_VALUES

Floats = npt.NDArray[np.float64]

NARROWER = ("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz", "bfloat16", "float16", "float32")
"""Types to which wider values may have been rounded silently, the coarsest first."""

LARGEST = {
    "float16": 65504.0,
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "int8": 127.0,
}
"""Largest value of types in which saturation is common."""


def _float8(name: str) -> Callable[[Floats], Floats]:
    grid = np.unique(FLOAT8_VALUES[FLOAT8.index(name)].astype(np.float64))
    grid = grid[np.isfinite(grid)]
    middles = (grid[1:] + grid[:-1]) / 2
    return lambda x: grid[np.searchsorted(middles, x)]


def _bfloat16(x: Floats) -> Floats:
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def rounder(name: str) -> Callable[[Floats], Floats]:
    """Return a function that rounds float64 to a float type; float8 saturates, others overflow to infinity.

    If two float8 values are equally near, the lower one is taken.
    """
    if name in FLOAT8:
        return _float8(name)
    if name == "bfloat16":
        return _bfloat16
    memory = DTYPES[name].memory
    return lambda x: x.astype(memory).astype(np.float64)

"""Limits on relative error by element type: what round-off explains, and what it never does.

The figures are those of a measured decoder (32 layers, bf16 and fp16 against fp32): healthy tensors stay below `warn`,
every visible fault exceeds `fail`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from aclcmp.labeling.shard.dtypes import DTYPES, DType
from aclcmp.orchestrator.judge.verdicts import Limits

_COMPONENT = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
_ALIKE = {"float8_e4m3fnuz": "float8_e4m3fn", "float8_e5m2fnuz": "float8_e5m2", "float8_e8m0fnu": "float8_e5m2"}

RELATIVE: dict[str, tuple[float, float]] = {
    "float64": (1e-12, 1e-9),
    "float32": (1e-5, 1e-3),
    "float16": (5e-3, 5e-2),
    "bfloat16": (3e-2, 0.15),
    "float8_e4m3fn": (0.1, 0.35),
    "float8_e5m2": (0.2, 0.5),
}
"""(warn, fail) on relative L2, of the whole tensor and of the worst row, by torch's dtype name."""

MOST = 0.9
"""No limit that depth or a measured floor gives lets more pass: zeros have an error of 1."""
_DEEPEST = 128
"""Limits grow up to this layer: larger numbers in names are seldom those of layers."""


def limits_of(
    golden: str, actual: str, relative: Mapping[str, tuple[float, float]] = RELATIVE, depth: int = 0
) -> Limits:
    """Return the limits for a pair of dtypes: those of the narrower one (larger eps); 0 for exact types.

    Round-off grows with the layers before: `fail` by sqrt(1 + depth / 8), as measured on the same decoder, but not
    beyond `MOST`.
    """
    name = narrower(golden, actual)
    if DTYPES[name].eps is None:
        return Limits(0.0, 0.0, "exact")
    warn, fail = relative[table_name(name)]
    grown = min(fail * math.sqrt(1 + min(depth, _DEEPEST) / 8), MOST)
    return Limits(warn, max(fail, grown), f"{table_name(name)} table" + f", layer {depth}" * (depth > 0))


@functools.cache
def narrower(golden: str, actual: str) -> str:
    """Return the dtype of the two that has the larger eps."""
    return max(DTYPES[golden], DTYPES[actual], key=_eps).name


def table_name(dtype: str) -> str:
    """Return the dtype under whose name an inexact dtype's limits stand."""
    name = _COMPONENT.get(dtype, dtype)
    return _ALIKE.get(name, name)


@functools.cache
def least_of(golden: str, actual: str) -> float:
    """Return the error by which two right computations may always differ: half of the narrower dtype's eps."""
    return _eps(DTYPES[narrower(golden, actual)]) / 2


def _eps(dtype: DType) -> float:
    return dtype.eps or 0.0

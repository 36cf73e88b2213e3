"""Limits on relative error by element type: what round-off explains, and what it never does.

The figures are those of trained models (SmolLM2, Gemma 3, MiniLM; docs/design/0009-trained-weights.md): in half
precision the median row of a healthy label is off by up to 4.2 eps whatever its depth, its worst row by up to 12 eps
times the growth with depth.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from aclcmp.labeling.shard.dtypes import DTYPES, DType
from aclcmp.orchestrator.core.verdicts import Limits

_COMPONENT = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
_ALIKE = {"float8_e4m3fnuz": "float8_e4m3fn", "float8_e5m2fnuz": "float8_e5m2", "float8_e8m0fnu": "float8_e5m2"}

RELATIVE: dict[str, tuple[float, float]] = {
    "float64": (1e-12, 5e-10),
    "float32": (1e-5, 5e-4),
    "float16": (4e-3, 2.5e-2),
    "bfloat16": (3e-2, 7.5e-2),
    "float8_e4m3fn": (0.1, 0.2),
    "float8_e5m2": (0.2, 0.3),
}
"""(warn, fail) on relative L2 of the median row, by torch's dtype name."""

ROWS = 2.0
"""Factor by which they are larger for the worst row."""

_MANY = 128
"""Rows beyond which the worst one grows with their number."""
_WORSE = 0.15
"""Part by which it is larger whenever their number doubles."""
MOST = 0.9
"""Largest limit that depth or a measured floor may give: zeros have an error of 1."""
_DEEPEST = 128
"""Layer up to which limits grow: larger numbers in names are seldom those of layers."""


def limits_of(
    golden: str,
    actual: str,
    relative: Mapping[str, tuple[float, float]] = RELATIVE,
    depth: int = 0,
    rows: int = 0,
) -> Limits:
    """Return the limits for a pair of dtypes: those of the narrower one (larger eps); 0 for exact types.

    Round-off grows with the layers before: both by sqrt(1 + depth / 8), up to `MOST`. The worst of many rows is
    worse, by 15 % for each time that they double beyond 128.
    """
    name = narrower(golden, actual)
    if DTYPES[name].eps is None:
        return Limits(0.0, 0.0, "exact", dtype=name)
    warn, fail = (_grow_with_depth(limit, depth) for limit in relative[table_name(name)])
    times = ROWS * (1 + _WORSE * math.log2(max(rows / _MANY, 1)))
    source = f"{table_name(name)} table" + f", layer {depth}" * (depth > 0)
    return Limits(warn, fail, source, max(1.0, min(times, MOST / fail)), dtype=name)


def _grow_with_depth(limit: float, depth: int) -> float:
    return max(limit, min(limit * math.sqrt(1 + min(depth, _DEEPEST) / 8), MOST))


@functools.cache
def narrower(golden: str, actual: str) -> str:
    """Return the dtype of the two that has the larger eps."""
    return max(DTYPES[golden], DTYPES[actual], key=_eps).name


def table_name(dtype: str) -> str:
    """Return the dtype under whose name an inexact dtype's limits stand."""
    name = _COMPONENT.get(dtype, dtype)
    return _ALIKE.get(name, name)


@functools.cache
def round_off_of(golden: str, actual: str) -> float:
    """Return the error by which two right computations may always differ: half of the narrower dtype's eps."""
    return _eps(DTYPES[narrower(golden, actual)]) / 2


def _eps(dtype: DType) -> float:
    return dtype.eps or 0.0

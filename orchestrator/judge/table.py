"""Limits on relative error by element type: what round-off explains, and what it never does.

The figures are those of a measured decoder (32 layers, bf16 and fp16 against fp32): healthy tensors stay below `warn`,
every visible fault exceeds `fail`.
"""

from __future__ import annotations

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


def limits_of(golden: str, actual: str) -> Limits:
    """Return the limits for a pair of dtypes: those of the narrower one (larger eps); 0 for exact types."""
    narrower = max(DTYPES[golden], DTYPES[actual], key=_eps)
    if narrower.eps is None:
        return Limits(0.0, 0.0, "exact")
    name = _COMPONENT.get(narrower.name, narrower.name)
    warn, fail = RELATIVE[_ALIKE.get(name, name)]
    return Limits(warn, fail, f"{name} table")


def _eps(dtype: DType) -> float:
    return dtype.eps or 0.0

"""Facts that follow from a pair's element types: tolerances, and the spacing of representable values."""

from __future__ import annotations

from aclcmp.labeling.shard.dtypes import DType, Kind

# Relative and absolute tolerance of one element of an operator's output: torch.testing's for float16 to float64, the
# relative one of Ascend's operator precision standards for float8, whose values are coarser than any small atol.
# Scales (e8m0) compare exactly.
_TOLERANCES = {
    "float64": (1e-7, 1e-7),
    "float32": (1.3e-6, 1e-5),
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float8_e4m3fn": (2.0**-3, 1e-5),
    "float8_e4m3fnuz": (2.0**-3, 1e-5),
    "float8_e5m2": (2.0**-2, 1e-5),
    "float8_e5m2fnuz": (2.0**-2, 1e-5),
    "float8_e8m0fnu": (0.0, 0.0),
    "complex32": (1e-3, 1e-5),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}

# The power of two that turns a type's subnormals into those of float32, and how many more mantissa bits float32 has.
_ORDINALS = {
    "float32": (1.0, 0),
    "float16": (2.0**-112, 13),
    "bfloat16": (1.0, 16),
    "float8_e4m3fn": (2.0**-120, 20),
    "float8_e4m3fnuz": (2.0**-119, 20),
    "float8_e5m2": (2.0**-112, 21),
    "float8_e5m2fnuz": (2.0**-111, 21),
    "float8_e8m0fnu": (1.0, 23),
    "complex32": (2.0**-112, 13),
    "complex64": (1.0, 0),
}


def tolerance(x: DType, y: DType) -> tuple[float, float]:
    """Return (rtol, atol) of the narrower of two types of one kind; zeros for exact kinds."""
    if x.kind in (Kind.INT, Kind.BOOL):
        return 0.0, 0.0
    narrower = max(x, y, key=lambda dtype: dtype.eps or 0.0)
    return _TOLERANCES[narrower.name]


def ordinal_scale(x: DType, y: DType) -> float:
    """Return the `scale` of `kernel.scan32`; 1 for types whose ordinals are not compared."""
    return _ORDINALS.get(x.name, (1.0, 0))[0] if x == y else 1.0


def representable_distance(x: DType, y: DType, distance: int) -> int:
    """Return a distance of ordinals in representable values; -1 unless both sides are one float type.

    The result is at most 2**63 - 1, which reports can hold; between float64 of both signs there are up to 2**64.
    """
    if x != y or x.kind in (Kind.INT, Kind.BOOL):
        return -1
    shift = _ORDINALS.get(x.name, (1.0, 0))[1]
    # Rounded for the smallest e8m0, which lies half an exponent below the next one in float32's subnormals.
    return min((distance + (1 << shift >> 1)) >> shift, (1 << 63) - 1)

"""Reductions over one pair of blocks, x golden and y actual, that lie in the nearest cache.

One simple loop per group of reductions: on one core of an AVX-512 machine each of them runs at 0.05 to 0.15 ns per
float32 pair, while one loop with everything runs out of registers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.jit import compiled

_Floats = npt.NDArray[np.floating]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

_MAGNITUDE = np.int32(0x7FFFFFFF)
_MAGNITUDE64 = np.int64(0x7FFFFFFFFFFFFFFF)


class Extremes(NamedTuple):
    """Extremes of two blocks as ordinals (sign-magnitude bits made two's complement, which orders floats)."""

    min_x: np.int64
    max_x: np.int64
    min_y: np.int64
    max_y: np.int64
    n_equal: np.int64
    max_distance: np.uint64
    """Largest distance of two ordinals."""


class Sums(NamedTuple):
    """Sums over a block."""

    x: np.float64
    y: np.float64
    xx: np.float64
    yy: np.float64
    xy: np.float64
    d: np.float64
    dd: np.float64
    abs_d: np.float64


class Ratios(NamedTuple):
    """What depends on |d| and |d / x|."""

    max_abs_d: np.float64
    sum_rel: np.float64
    max_rel: np.float64


class Counts(NamedTuple):
    """Positions beyond the three thresholds."""

    over_1k: np.int64
    over_5k: np.int64
    over_tolerance: np.int64


@compiled
def extremes32(x: _Float32, y: _Float32, scale: np.float32) -> Extremes:
    """Return the extremes of x * scale and y * scale, as ordinals of float32.

    A power of two as `scale` makes a narrower type's subnormals those of float32, so that ordinals of equal distance in
    the narrower type have equal distance here.
    """
    # Ordinals and their int32() casts keep all lanes 32 bits wide; numba would widen each step to int64 (2.2x slower).
    # Comparing floats instead is 3x slower, since without nnan it does not vectorise.
    min_x = min_y = _MAGNITUDE
    max_x = max_y = np.int32(-_MAGNITUDE)
    n_equal = np.int32(0)
    distance = np.uint32(0)
    for i in range(x.size):
        a = np.float32(x[i] * scale).view(np.int32)
        b = np.float32(y[i] * scale).view(np.int32)
        n_equal = np.int32(n_equal + np.int32(a == b))
        sign_a = np.int32(a >> np.int32(31))
        sign_b = np.int32(b >> np.int32(31))
        a = np.int32(np.int32(np.int32(a & _MAGNITUDE) ^ sign_a) - sign_a)
        b = np.int32(np.int32(np.int32(b & _MAGNITUDE) ^ sign_b) - sign_b)
        min_x = min(min_x, a)
        max_x = max(max_x, a)
        min_y = min(min_y, b)
        max_y = max(max_y, b)
        distance = max(distance, np.uint32(np.int32(max(a, b) - min(a, b))))
    return Extremes(
        np.int64(min_x), np.int64(max_x), np.int64(min_y), np.int64(max_y), np.int64(n_equal), np.uint64(distance)
    )


@compiled
def extremes64(x: _Float64, y: _Float64) -> Extremes:
    """Return the extremes of x and y, as ordinals of float64."""
    bits_x = x.view(np.int64)
    bits_y = y.view(np.int64)
    min_x = min_y = _MAGNITUDE64
    max_x = max_y = -_MAGNITUDE64
    n_equal = 0
    distance = np.uint64(0)
    for i in range(x.size):
        a = bits_x[i]
        b = bits_y[i]
        n_equal += a == b
        sign_a = a >> 63
        sign_b = b >> 63
        a = ((a & _MAGNITUDE64) ^ sign_a) - sign_a
        b = ((b & _MAGNITUDE64) ^ sign_b) - sign_b
        min_x = min(min_x, a)
        max_x = max(max_x, a)
        min_y = min(min_y, b)
        max_y = max(max_y, b)
        distance = max(distance, np.uint64(max(a, b)) - np.uint64(min(a, b)))
    return Extremes(
        np.int64(min_x), np.int64(max_x), np.int64(min_y), np.int64(max_y), np.int64(n_equal), np.uint64(distance)
    )


@compiled
def count_equal(x: _Int64, y: _Int64, same_sign: bool) -> int:
    """Count equal integers; unless `same_sign`, one of the arrays holds the bits of uint64."""
    count = 0
    for i in range(x.size):
        count += x[i] == y[i] and (same_sign or x[i] >= 0)
    return count


@compiled
def float32_of(ordinal: np.int64) -> float:
    """Value of an ordinal of float32."""
    value = np.float64(np.int32(abs(ordinal)).view(np.float32))
    return value if ordinal >= 0 else -value


@compiled
def float64_of(ordinal: np.int64) -> float:
    """Value of an ordinal of float64."""
    value = np.int64(abs(ordinal)).view(np.float64)
    return value if ordinal >= 0 else -value


@compiled
def sums(x: _Floats, y: _Floats) -> Sums:
    """Sum in the arrays' own type, which for float32 must not be more than some 2,048 long."""
    zero = x.dtype.type(0)
    sx, sy, sxx, syy, sxy, sd, sdd, sad = zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(x.size):
        a = x[i]
        b = y[i]
        d = b - a
        sx += a
        sy += b
        sxx += a * a
        syy += b * b
        sxy += a * b
        sd += d
        sdd += d * d
        sad += abs(d)
    return Sums(
        np.float64(sx),
        np.float64(sy),
        np.float64(sxx),
        np.float64(syy),
        np.float64(sxy),
        np.float64(sd),
        np.float64(sdd),
        np.float64(sad),
    )


@compiled
def ratios_and_counts32(x: _Float32, y: _Float32, atol: np.float32, rtol: np.float32) -> tuple[Ratios, Counts, bool]:
    """Return ratios, counts, and whether the counts are certain.

    They are not where a value is so close to its threshold that float32 cannot tell the side (4 units in the last
    place). Finite values only; ratios are infinite where they overflow.
    """
    thousandth = np.float32(1e-3)
    five_thousandths = np.float32(5e-3)
    bits_1k = thousandth.view(np.int32)
    bits_5k = five_thousandths.view(np.int32)
    four = np.int32(4)
    over_1k, over_5k, over_tolerance = np.int32(0), np.int32(0), np.int32(0)
    max_d, max_rel = np.int32(0), np.int32(0)
    sum_rel = np.float32(0)
    closest = np.uint32(0xFFFFFFFF)
    for i in range(x.size):
        a = abs(x[i])
        d = np.float32(abs(y[i] - x[i]))
        bits_d = d.view(np.int32)
        max_d = max(max_d, bits_d)
        limit = np.float32(atol + np.float32(rtol * a))
        over_tolerance = np.int32(over_tolerance + np.int32(d > limit))
        ratio = np.float32(d / a)  # at x = 0 infinite, which counts as over, or NaN, which does not
        over_1k = np.int32(over_1k + np.int32(ratio > thousandth))
        over_5k = np.int32(over_5k + np.int32(ratio > five_thousandths))
        bits_ratio = ratio.view(np.int32)
        closest = min(closest, np.uint32(np.int32(np.int32(bits_d - limit.view(np.int32)) + four)))
        closest = min(closest, np.uint32(np.int32(np.int32(bits_ratio - bits_1k) + four)))
        closest = min(closest, np.uint32(np.int32(np.int32(bits_ratio - bits_5k) + four)))
        rel = np.float32(0) if a == np.float32(0) else ratio
        sum_rel += rel
        max_rel = max(max_rel, np.float32(rel).view(np.int32))
    ratios = Ratios(
        np.float64(np.int32(max_d).view(np.float32)),
        np.float64(sum_rel),
        np.float64(np.int32(max_rel).view(np.float32)),
    )
    counts = Counts(np.int64(over_1k), np.int64(over_5k), np.int64(over_tolerance))
    return ratios, counts, bool(closest > np.uint32(8))


@compiled
def ratios64(x: _Float64, y: _Float64) -> Ratios:
    """Return the ratios of finite values."""
    max_d, max_rel = np.int64(0), np.int64(0)  # as bits, which order what is not negative
    sum_rel = 0.0
    for i in range(x.size):
        a = abs(x[i])
        d = abs(y[i] - x[i])
        max_d = max(max_d, np.float64(d).view(np.int64))
        rel = 0.0 if a == 0.0 else d / a
        sum_rel += rel
        max_rel = max(max_rel, np.float64(rel).view(np.int64))
    return Ratios(np.int64(max_d).view(np.float64), np.float64(sum_rel), np.int64(max_rel).view(np.float64))


@compiled
def counts64(x: _Floats, y: _Floats, atol: float, rtol: float) -> Counts:
    """Count in float64 the positions beyond the thresholds, of float32 or float64 values."""
    over_1k, over_5k, over_tolerance = 0, 0, 0
    for i in range(x.size):
        a = np.float64(x[i])
        d = abs(np.float64(y[i]) - a)
        a = abs(a)
        over_1k += int(d > 1e-3 * a)
        over_5k += int(d > 5e-3 * a)
        over_tolerance += int(d > atol + rtol * a)
    return Counts(np.int64(over_1k), np.int64(over_5k), np.int64(over_tolerance))


@compiled
def max_difference(x: _Floats, y: _Floats) -> float:
    """Return the largest |d| of finite values, with d taken in float64."""
    largest = np.int64(0)
    for i in range(x.size):
        largest = max(largest, np.float64(abs(np.float64(y[i]) - np.float64(x[i]))).view(np.int64))
    return np.int64(largest).view(np.float64)


@compiled
def find_difference(x: _Floats, y: _Floats, difference: float) -> int:
    """Return the first position where both are finite and |d| is `difference`; -1 if there is none."""
    for i in range(x.size):
        a = np.float64(x[i])
        b = np.float64(y[i])
        if abs(b - a) == difference and np.isfinite(a) and np.isfinite(b):
            return i
    return -1


@compiled
def square_sums(x: _Floats, y: _Floats) -> tuple[float, float]:
    """Return the sums of x^2 and d^2, in float64."""
    xx, dd = 0.0, 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        d = np.float64(y[i]) - a
        xx += a * a
        dd += d * d
    return xx, dd

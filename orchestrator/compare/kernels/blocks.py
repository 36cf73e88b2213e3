"""Reductions over one pair of blocks, x golden and y actual.

One loop does them all. Measured for float32 with AVX-512: 0.52 ns per pair in the cache and 0.67 from memory, against
0.55 and 0.76 as two loops, since the second does not overlap with reading. Maxima are taken of bit patterns, as
integers: without the nnan flag, which would spoil the recognition of NaN, float maxima are not vectorised (3 times
slower). All steps are cast back to the width of the lanes, since numba widens integers to 64 bits (2.2 times slower).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.kernels.jit import jit

_Floats = npt.NDArray[np.floating]
_Int64 = npt.NDArray[np.int64]


def _float32_lanes() -> int:
    """Return how many float32 a vector holds in LLVM's code for this machine; on Intel it avoids the widest vectors."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and llvmlite.binding.get_host_cpu_name().startswith("znver"):
        return 16
    return 8 if features.get("avx2") else 4


# A lane adds up 64 values in float32. Of equal values, the worst case, the sum is then wrong by up to 0.99e-6 (measured
# for 3,000 constants); twice as many would miss 1e-6, half as many cost 6 % of the speed.
_STRIP = 64 * _float32_lanes()


class Sums(NamedTuple):
    """Sums and maxima of values computed from x, y and d = y - x."""

    x: np.float64
    y: np.float64
    xx: np.float64
    yy: np.float64
    xy: np.float64
    d: np.float64
    dd: np.float64
    abs_d: np.float64
    rel_d: np.float64
    max_abs_d: np.float64
    max_rel_d: np.float64


class ThresholdCounts(NamedTuple):
    """Number of positions beyond each of three thresholds, which does not depend on how blocks are cut."""

    over_1k: np.int64
    over_5k: np.int64
    over_tolerance: np.int64


class BitExtremes(NamedTuple):
    """Extremes and comparisons of bits.

    Ordinals are sign-magnitude bits turned into two's complement, which orders floats.
    """

    min_x: np.int64
    """An ordinal, like the next three."""
    max_x: np.int64
    min_y: np.int64
    max_y: np.int64
    n_equal: np.int64
    max_distance: np.uint64
    """Largest distance of two ordinals."""
    bits_x: np.int64
    """All bits that are set in any value of x."""
    bits_y: np.int64


def _make_reduce(
    real: Any, bits: Any, unsigned: Any
) -> Callable[[Any, Any, float, float], tuple[Sums, ThresholdCounts, BitExtremes]]:
    zero, thousandth, five_thousandths = real(0), real(1e-3), real(5e-3)
    none, negative_zero, largest = bits(0), bits(np.iinfo(bits).min), bits(np.iinfo(bits).max)
    no_sums, no_counts = Sums(*[np.float64(0)] * 11), ThresholdCounts(*[np.int64(0)] * 3)
    first, last = np.int64(negative_zero), np.int64(largest)
    no_order = BitExtremes(last, first, last, first, np.int64(0), np.uint64(0), np.int64(0), np.int64(0))

    @jit
    def reduce(x: Any, y: Any, rtol: float, atol: float) -> tuple[Sums, ThresholdCounts, BitExtremes]:
        """Reduce two blocks in their own type, strip by strip; the strips' results are added up in 64 bits."""
        x_bits, y_bits = x.view(bits), y.view(bits)
        atol_real, rtol_real = real(atol), real(rtol)
        sums, counts, order = no_sums, no_counts, no_order
        for begin in range(0, x.size, _STRIP):
            sum_x, sum_y, sum_xx, sum_yy, sum_xy = zero, zero, zero, zero, zero
            sum_d, sum_dd, sum_abs_d, sum_rel_d = zero, zero, zero, zero
            max_abs_d, max_rel_d = none, none
            over_1k, over_5k, over_tolerance = none, none, none
            min_x, max_x, min_y, max_y = largest, negative_zero, largest, negative_zero
            n_equal, distance, any_x, any_y = none, unsigned(0), none, none
            # Unsigned numbers spare each access the test for an index that counts from the end.
            for i in range(np.uintp(begin), np.uintp(min(begin + _STRIP, x.size))):
                a = x[i]
                b = y[i]
                d = b - a
                sum_x += a
                sum_y += b
                sum_xx += a * a
                sum_yy += b * b
                sum_xy += a * b
                sum_d += d
                sum_dd += d * d

                size = abs(a)
                error = real(abs(d))
                sum_abs_d += error
                max_abs_d = max(max_abs_d, error.view(bits))
                over_tolerance = bits(over_tolerance + bits(error > atol_real + rtol_real * size))
                ratio = error / size  # at x = 0 infinite, which is over, or NaN, which is not
                over_1k = bits(over_1k + bits(ratio > thousandth))
                over_5k = bits(over_5k + bits(ratio > five_thousandths))
                rel_d = zero if size == zero else ratio
                sum_rel_d += rel_d
                max_rel_d = max(max_rel_d, real(rel_d).view(bits))

                m = x_bits[i]
                n = y_bits[i]
                n_equal = bits(n_equal + bits(m == n))
                any_x = bits(any_x | m)
                any_y = bits(any_y | n)
                m = m if m >= none else bits(negative_zero - m)
                n = n if n >= none else bits(negative_zero - n)
                min_x = min(min_x, m)
                max_x = max(max_x, m)
                min_y = min(min_y, n)
                max_y = max(max_y, n)
                distance = max(distance, unsigned(unsigned(max(m, n)) - unsigned(min(m, n))))
            sums = Sums(
                sums.x + sum_x,
                sums.y + sum_y,
                sums.xx + sum_xx,
                sums.yy + sum_yy,
                sums.xy + sum_xy,
                sums.d + sum_d,
                sums.dd + sum_dd,
                sums.abs_d + sum_abs_d,
                sums.rel_d + sum_rel_d,
                max(sums.max_abs_d, np.float64(bits(max_abs_d).view(real))),
                max(sums.max_rel_d, np.float64(bits(max_rel_d).view(real))),
            )
            counts = ThresholdCounts(
                counts.over_1k + over_1k, counts.over_5k + over_5k, counts.over_tolerance + over_tolerance
            )
            order = BitExtremes(
                min(order.min_x, np.int64(min_x)),
                max(order.max_x, np.int64(max_x)),
                min(order.min_y, np.int64(min_y)),
                max(order.max_y, np.int64(max_y)),
                order.n_equal + n_equal,
                max(order.max_distance, np.uint64(distance)),
                order.bits_x | np.int64(any_x),
                order.bits_y | np.int64(any_y),
            )
        return sums, counts, order

    return reduce


reduce32 = _make_reduce(np.float32, np.int32, np.uint32)
reduce64 = _make_reduce(np.float64, np.int64, np.uint64)


@jit
def max_distance(x: _Floats, y: _Floats, scale: float) -> np.uint64:
    """Return the largest distance of ordinals of float32, after multiplication by `scale`."""
    largest = np.uint32(0)
    for i in range(x.size):
        m = np.float32(x[i] * np.float32(scale)).view(np.int32)
        n = np.float32(y[i] * np.float32(scale)).view(np.int32)
        m = m if m >= np.int32(0) else np.int32(np.int32(-(2**31)) - m)
        n = n if n >= np.int32(0) else np.int32(np.int32(-(2**31)) - n)
        largest = max(largest, np.uint32(np.uint32(max(m, n)) - np.uint32(min(m, n))))
    return np.uint64(largest)


@jit
def float32_of(ordinal: np.int64) -> float:
    """Return the value of an ordinal of float32."""
    value = np.float64(np.int32(abs(ordinal)).view(np.float32))
    return value if ordinal >= 0 else -value


@jit
def float64_of(ordinal: np.int64) -> float:
    """Return the value of an ordinal of float64."""
    value = np.int64(abs(ordinal)).view(np.float64)
    return value if ordinal >= 0 else -value


@jit
def count_equal(x: _Int64, y: _Int64, same_sign: bool) -> int:
    """Count equal integers; without `same_sign`, one of the arrays holds the bits of uint64."""
    count = 0
    for i in range(x.size):
        count += x[i] == y[i] and (same_sign or x[i] >= 0)
    return count


@jit
def max_difference(x: _Floats, y: _Floats) -> float:
    """Return the largest |d| of finite values, with d taken in float64."""
    largest = np.int64(0)
    for i in range(x.size):
        largest = max(largest, np.float64(abs(np.float64(y[i]) - np.float64(x[i]))).view(np.int64))
    return np.int64(largest).view(np.float64)


@jit
def find_difference(x: _Floats, y: _Floats, fx: _Floats, fy: _Floats, difference: float) -> int:
    """Return the first position where |d| is `difference`; -1 if there is none.

    `fx` and `fy` are x and y, with zeros at positions that do not count.
    """
    for i in range(x.size):
        if abs(np.float64(fy[i]) - np.float64(fx[i])) == difference and fx[i] == x[i] and fy[i] == y[i]:
            return i
    return -1


@jit
def square_sums(x: _Floats, y: _Floats, begin: int, end: int) -> tuple[float, float]:
    """Return the sums of x^2 and d^2 over begin <= i < end, in float64."""
    xx, dd = 0.0, 0.0
    for i in range(np.uintp(begin), np.uintp(end)):
        a = np.float64(x[i])
        d = np.float64(y[i]) - a
        xx += a * a
        dd += d * d
    return xx, dd

"""The one pass over a pair's bytes: blocks of both regions are decoded, reduced, and added up in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.kernels import blocks
from aclcmp.orchestrator.compare.kernels.decode import UINT64, decode32, decode64
from aclcmp.orchestrator.compare.kernels.gather import run_start, stretch
from aclcmp.orchestrator.compare.kernels.jit import entry_point, jit
from aclcmp.orchestrator.compare.kernels.kernel_args import KernelLimits, KernelOperand, Rows, Totals
from aclcmp.orchestrator.compare.kernels.strides import Walk

_Floats = npt.NDArray[np.floating]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

BLOCK = 2048
"""Most elements that are reduced at a time: where float32 is not enough, this many are reduced again."""

CHUNK = 65_536
"""Most elements that are gathered and decoded at a time: both sides stay in a second-level cache. Each chunk has a
fixed cost, so that chunks of 8,192 are 5 to 15 % slower."""

_IN_PLACE = 4096
"""Shorter runs are first copied together: each chunk costs 0.35 us, and copying 512 elements a tenth of that."""
_OWN_BLOCK = 512  # A row piece of at least this length gets a block of its own, which saves summing the row again.

# Between this and infinity, underflow has no effect on a sum of squares in float32: 2,048 times half the smallest
# subnormal is 2^-139.
_SAFE_SQUARES = 2.0**-100


@jit
def _segment(rows: Rows, position: int) -> tuple[int, int]:
    """Return the row group of an element, and the end of the elements from there on that share the group."""
    return _segment_at(
        rows.width, rows.group, rows.walk.run, rows.walk.base, rows.walk.sizes, rows.walk.strides, position
    )


@jit
def _segment_at(
    width: int, group: int, run: int, base: int, sizes: _Int64, strides: _Int64, position: int
) -> tuple[int, int]:
    row = position // width
    number = row // run
    within = row - number * run
    whole_row = run_start(base, sizes, strides, number) + within
    count = min(run - within, group - whole_row % group)
    return whole_row // group, (row + count) * width


@jit
def _add_rows(rows: Rows, position: int, x: _Floats, y: _Floats, current: int, segment_end: int) -> tuple[int, int]:
    """Add up a block that begins at `position` by rows; return the group and segment end of its last element."""
    # Read from the tuple once: each access to an array in it counts references, which costs more than a short row.
    width, group, walk = rows.width, rows.group, rows.walk
    run, base, sizes, strides = walk.run, walk.base, walk.sizes, walk.strides
    seen, sum_xx, sum_dd = rows.seen, rows.sum_xx, rows.sum_dd
    begin = 0
    while True:
        end = min(x.size, segment_end - position)
        xx, dd = blocks.square_sums(x, y, begin, end)
        sum_xx[current] += xx
        sum_dd[current] += dd
        seen[current] = True
        begin = end
        if begin == x.size:
            return current, segment_end
        current, segment_end = _segment_at(width, group, run, base, sizes, strides, position + begin)


@jit
def _add(totals: Totals, sums: blocks.Sums, counts: blocks.ThresholdCounts) -> None:
    """Add a block's sums and counts."""
    totals.sums[0] += sums.x
    totals.sums[1] += sums.y
    totals.sums[2] += sums.xx
    totals.sums[3] += sums.yy
    totals.sums[4] += sums.xy
    totals.sums[5] += sums.d
    totals.sums[6] += sums.dd
    totals.sums[7] += sums.abs_d
    totals.sums[8] += sums.rel_d
    totals.extremes[4] = max(totals.extremes[4], sums.max_rel_d)
    totals.counts[2] += counts.over_1k
    totals.counts[3] += counts.over_5k
    totals.counts[4] += counts.over_tolerance


@jit
def _widen(totals: Totals, low_x: float, high_x: float, low_y: float, high_y: float) -> None:
    """Widen the ranges of x and y."""
    totals.extremes[0] = min(totals.extremes[0], low_x)
    totals.extremes[1] = max(totals.extremes[1], high_x)
    totals.extremes[2] = min(totals.extremes[2], low_y)
    totals.extremes[3] = max(totals.extremes[3], high_y)


@jit
def _update_max_difference(totals: Totals, position: int, x: _Floats, y: _Floats, fx: _Floats, fy: _Floats) -> None:
    """Update the largest |d| by the block's; fx and fy are x and y with zeros at non-finite pairs."""
    largest = blocks.max_difference(fx, fy)
    if largest > totals.extremes[5]:
        at = blocks.find_difference(x, y, fx, fy, largest)
        totals.extremes[5] = largest
        totals.extremes[6] = x[at]
        totals.extremes[7] = y[at]
        totals.position[0] = position + at


@jit
def _mask_nonfinite(totals: Totals, limits: KernelLimits, x: _Floats, y: _Floats, fx: _Floats, fy: _Floats) -> int:
    """Copy x and y to fx and fy, with zeros where not both are finite; return the number of these positions.

    Non-finite values are counted, and the ranges are widened by the finite ones. Where both sides are -inf or the
    lowest value of their types, as in masks, both count as -inf.
    """
    count = 0
    for i in range(x.size):
        a = x[i]
        b = y[i]
        if a <= limits.lowest_x and b <= limits.lowest_y:
            fx[i] = 0
            fy[i] = 0
            count += 1
            totals.counts[0] += a == b
            totals.counts[7] += 1
            totals.counts[10] += 1
            totals.counts[11] += 1
            continue
        if np.isfinite(a) and np.isfinite(b):
            fx[i] = a
            fy[i] = b
            _widen(totals, a, a, b, b)
            continue
        fx[i] = 0
        fy[i] = 0
        count += 1
        class_x = _nonfinite_class(a)
        class_y = _nonfinite_class(b)
        if class_x >= 0:
            totals.counts[5 + class_x] += 1
        if class_y >= 0:
            totals.counts[8 + class_y] += 1
        if class_x == class_y:
            totals.counts[0] += 1
            totals.counts[11] += 1
    return count


@jit
def _nonfinite_class(value: float) -> int:
    """Return 0 for NaN, 1 and 2 for positive and negative infinity, -1 for finite values."""
    if np.isnan(value):
        return 0
    if np.isinf(value):
        return 1 if value > 0 else 2
    return -1


@jit
def _safe(sum_of_squares: float, all_zero: bool) -> bool:
    """Tell whether float32 was wide enough to sum these squares."""
    return all_zero or _SAFE_SQUARES <= sum_of_squares < np.inf


def _make_scan_chunk(reduce: Any, value_of: Any, infinity: np.int64) -> Any:
    is_float32 = reduce is blocks.reduce32

    @jit
    def scan_chunk(
        x: Any, y: Any, position: int, rows: Rows, limits: KernelLimits, scale: float, totals: Totals
    ) -> None:
        """Add a chunk's elements, the first of which is number `position` of the region, to `totals` and `rows`."""
        group, segment_end = _segment(rows, position)
        begin = 0
        while begin < x.size:
            at = position + begin
            if at == segment_end:
                group, segment_end = _segment(rows, at)
            end = min(begin + BLOCK, x.size)
            if segment_end - at >= _OWN_BLOCK:
                end = min(end, segment_end - position)
            fx, fy, masked = x[begin:end], y[begin:end], 0
            sums, counts, order = reduce(fx, fy, limits.rtol, limits.atol)
            masked_low = value_of(order.min_x) <= limits.lowest_x and value_of(order.min_y) <= limits.lowest_y
            if max(max(order.max_x, -order.min_x), max(order.max_y, -order.min_y)) < infinity and not masked_low:
                _widen(
                    totals, value_of(order.min_x), value_of(order.max_x), value_of(order.min_y), value_of(order.max_y)
                )
            else:
                fx, fy = np.empty_like(fx), np.empty_like(fy)
                masked = _mask_nonfinite(totals, limits, x[begin:end], y[begin:end], fx, fy)
                sums, counts, order = reduce(fx, fy, limits.rtol, limits.atol)
            if is_float32:
                safe_x = _safe(sums.xx, order.min_x == 0 and order.max_x == 0)
                safe_y = _safe(sums.yy, order.min_y == 0 and order.max_y == 0)
                if not (safe_x and safe_y and _safe(sums.dd, sums.max_abs_d == 0.0) and sums.rel_d < np.inf):
                    wide_x, wide_y = fx.astype(np.float64), fy.astype(np.float64)
                    sums = blocks.reduce64(wide_x, wide_y, limits.rtol, limits.atol)[0]
            distance = order.max_distance if scale == 1.0 else blocks.max_distance(fx, fy, scale)
            totals.distance[0] = max(totals.distance[0], distance)
            totals.bits[0] |= order.bits_x
            totals.bits[1] |= order.bits_y
            totals.counts[0] += order.n_equal - masked
            totals.counts[1] += end - begin - masked
            _add(totals, sums, counts)
            # float32 may have rounded |d| down by half a unit.
            if end - begin > masked and sums.max_abs_d * (1 + 2.0**-23) > totals.extremes[5]:
                _update_max_difference(totals, at, x[begin:end], y[begin:end], fx, fy)
            if position + end <= segment_end:
                rows.seen[group] = True
                rows.sum_xx[group] += sums.xx
                rows.sum_dd[group] += sums.dd
            else:
                group, segment_end = _add_rows(rows, at, fx, fy, group, segment_end)
            begin = end

    return scan_chunk


_scan_chunk32 = _make_scan_chunk(blocks.reduce32, blocks.float32_of, np.int64(0x7F800000))
_scan_chunk64 = _make_scan_chunk(blocks.reduce64, blocks.float64_of, np.int64(0x7FF0000000000000))


@jit
def _chunk_size(x_walk: Walk, y_walk: Walk, position: int, stop: int) -> int:
    """Return the size of the chunk that begins at `position`; long runs are read in place, not copied together."""
    size = min(CHUNK, stop - position)
    for left in (x_walk.run - position % x_walk.run, y_walk.run - position % y_walk.run):
        if left >= _IN_PLACE:
            size = min(size, left)
    return size


@entry_point
def scan32(
    x_side: KernelOperand,
    y_side: KernelOperand,
    rows: Rows,
    limits: KernelLimits,
    scale: float,
    start: int,
    stop: int,
    totals: Totals,
) -> None:
    """Add to `totals` and `rows` the elements start <= i < stop of a pair whose values float32 holds exactly.

    `totals.distance` is that of ordinals of float32, after multiplication by `scale`. A power of two that makes a
    narrower type's subnormals those of float32 makes its representable values equally far apart.
    """
    raw = np.empty((2, 4 * CHUNK), np.uint8)
    scratch = np.empty((2, CHUNK), np.float32)
    position = start
    while position < stop:
        size = _chunk_size(x_side.walk, y_side.walk, position, stop)
        x_raw = stretch(x_side.data, x_side.itemsize, x_side.walk, position, raw[0, : size * x_side.itemsize])
        y_raw = stretch(y_side.data, y_side.itemsize, y_side.walk, position, raw[1, : size * y_side.itemsize])
        x = decode32(x_raw, x_side.code, scratch[0, :size])
        y = decode32(y_raw, y_side.code, scratch[1, :size])
        _scan_chunk32(x, y, position, rows, limits, scale, totals)
        position += size


@entry_point
def scan64(
    x_side: KernelOperand,
    y_side: KernelOperand,
    rows: Rows,
    limits: KernelLimits,
    integers: bool,
    start: int,
    stop: int,
    totals: Totals,
) -> None:
    """Add to `totals` and `rows` the elements start <= i < stop of any pair; `integers` is True for exact types."""
    raw = np.empty((2, 8 * CHUNK), np.uint8)
    scratch = np.empty((2, CHUNK), np.float64)
    scratch32 = np.empty(CHUNK, np.float32)
    exact = np.empty((2, CHUNK), np.int64)
    same_sign = (x_side.code == UINT64) == (y_side.code == UINT64)
    n_equal = totals.counts[0]
    position = start
    while position < stop:
        size = _chunk_size(x_side.walk, y_side.walk, position, stop)
        x_raw = stretch(x_side.data, x_side.itemsize, x_side.walk, position, raw[0, : size * x_side.itemsize])
        y_raw = stretch(y_side.data, y_side.itemsize, y_side.walk, position, raw[1, : size * y_side.itemsize])
        x = decode64(x_raw, x_side.code, scratch[0, :size], scratch32[:size], exact[0, :size])
        y = decode64(y_raw, y_side.code, scratch[1, :size], scratch32[:size], exact[1, :size])
        _scan_chunk64(x, y, position, rows, limits, 1.0, totals)
        if integers:
            n_equal += blocks.count_equal(exact[0, :size], exact[1, :size], same_sign)
        position += size
    if integers:
        totals.counts[0] = n_equal

"""Statistics of one pair: the kernel reads both regions window by window, and the memory behind them is released."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.element_codes import CODES, FLOAT64
from aclcmp.labeling.shard.element_values import components_of
from aclcmp.labeling.shard.tensor_summary import neighbours_together
from aclcmp.orchestrator.compare.gathered_rows import GatheredRows
from aclcmp.orchestrator.compare.kernels.kernel import BLOCK, scan32, scan64
from aclcmp.orchestrator.compare.kernels.kernel_args import KernelLimits, KernelOperand, Rows, ScatteredOperand, Totals
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.compare.kernels.operands import (
    SUM_WINDOW,
    OperandReader,
    Reach,
    ScatteredRows,
    StoredOperand,
    SumOperand,
    WindowOperand,
)
from aclcmp.orchestrator.compare.kernels.strides import Walk
from aclcmp.orchestrator.compare.kernels.tolerance import ordinal_scale, representable_distance, tolerance
from aclcmp.orchestrator.compare.read_choices import has_choices, read_choices
from aclcmp.orchestrator.compare.remote_reads import NOTHING, Fetched, fetched_bits
from aclcmp.orchestrator.core.regions import Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats, RowSums

MAX_ROW_GROUPS = 65_536
"""Tensors of more rows than this are summed by groups of rows."""

_WINDOW_BYTES = 4 << 20  # numpy.dot over a map loses 15 % with windows of 1 MiB and gains 5 % with 16 MiB

_SMALLEST_WINDOW = 64  # Elements. Each may map 64 KiB, as much as Linux reads around a page fault.


def _release_nothing(start: int, stop: int) -> None:
    """Do nothing: arrays in memory are not released."""


def _check_nothing() -> None:
    """Do nothing: arrays in memory have no checksum."""


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """One side of a pair: the region of a stored tensor that is compared."""

    bits: npt.NDArray[np.generic]
    """Whole stored tensor, flat, dense in C order, in `DType.memory`."""
    dtype: str
    shape: tuple[int, ...]
    region: Region
    release: Callable[[int, int], None] = _release_nothing
    """Called with (start, stop) when the elements start <= i < stop of `bits` have been read."""
    more: tuple[Operand, ...] = ()
    """Further summands of a tensor that is a sum, of the same dtype and of the same shape of the region."""
    rows: GatheredRows | None = None
    """Reader of the rows where they lie scattered; `bits` are empty then."""
    check_stored: Callable[[], None] = _check_nothing
    """Raises ShardError if `bits` are not what was recorded; called when all is read."""

    @staticmethod
    def open(source: Source, region: Region, more: tuple[Source, ...] = (), fetched: Fetched = NOTHING) -> Operand:
        """Return the operand of `source` plus the summands `more`, as memory maps or from `fetched`.

        Raises ValueError for summands of different dtypes or shapes, and ShardError for a tensor that cannot be read.
        """
        for other in more:
            _check_alike((source.dtype, source.shape), (other.dtype, other.shape))
        others = tuple(Operand.open(each, region, fetched=fetched) for each in more)
        dense = fetched_bits(fetched, (source, region))
        if dense is not None:
            bits = dense.view(DTYPES[source.dtype].memory)
            return Operand(bits, source.dtype, region.shape, Region.whole(region.shape), more=others)
        if source.places is not None:
            rows = GatheredRows(source)
            empty = np.empty(0, DTYPES[source.dtype].memory)
            return Operand(empty, source.dtype, source.shape, region, more=others, rows=rows, check_stored=rows.check)
        stored = open_bits(source)
        return Operand(
            stored.bits, source.dtype, source.shape, region, stored.release, others, check_stored=stored.check
        )

    def check(self) -> None:
        """Raise ShardError if the data of any summand is not what was recorded."""
        for each in (self, *self.more):
            each.check_stored()


def open_sides(pair: Pair, fetched: Fetched = NOTHING) -> tuple[Operand, Operand]:
    """Return both sides of a pair of whole tensors. Raises ShardError for one that cannot be read."""
    golden = Operand.open(pair.golden, pair.golden_region, pair.more_golden, fetched)
    return golden, Operand.open(pair.actual, pair.actual_region, pair.more_actual, fetched)


def read_pair_stats(pair: Pair, fetched: Fetched = NOTHING) -> PairStats:
    """Return the statistics of a stored pair.

    `fetched` holds what lies on other hosts. Raises ShardError when a side cannot be read, or is not what was recorded.
    """
    if not pair.is_whole:
        from aclcmp.orchestrator.compare.summarised_pair import summary_stats  # actors need it only for summaries

        return summary_stats(pair, fetched, row_group(pair.whole_shape))
    golden, actual = open_sides(pair, fetched)
    stats = pair_stats(golden, actual, pair.whole_shape, pair.region)
    if has_choices(pair):
        stats = replace(stats, choices=read_choices(windows(golden, actual), pair.region))
    golden.check()
    actual.check()
    return stats


def row_group(whole_shape: tuple[int, ...]) -> int:
    """Return how many consecutive rows of a global tensor are summed together: a power of two."""
    return neighbours_together(math.prod(whole_shape[:-1]), MAX_ROW_GROUPS)


def pair_stats(golden: Operand, actual: Operand, whole_shape: tuple[int, ...], region: Region) -> PairStats:
    """Return the statistics of a pair; `region` is its place in the global tensor of `whole_shape`.

    All regions must have one shape, both sides one kind (`DType.kind`), and one side's summands one dtype; raises
    ValueError otherwise. Memory beyond the operands does not grow with their size. Tolerances are those of the
    stored dtypes, also for sums, for which `max_ulp` is unknown.
    """
    x_dtype, y_dtype = DTYPES[golden.dtype], DTYPES[actual.dtype]
    if not golden.region.shape == actual.region.shape == region.shape:
        raise ValueError(f"regions of shapes {golden.region.shape}, {actual.region.shape} and {region.shape}")
    if x_dtype.kind is not y_dtype.kind:
        raise ValueError(f"{x_dtype.name} cannot be compared with {y_dtype.name}")
    for side in (golden, actual):
        for other in side.more:
            _check_alike((side.dtype, side.region.shape), (other.dtype, other.region.shape))
    if region.size == 0:
        return PairStats.empty()
    components = components_of(golden.dtype)
    component_shape, component_region = _in_components(whole_shape, region, components)
    rows = _rows(component_shape, component_region)
    limits = KernelLimits(*tolerance(x_dtype, y_dtype), x_dtype.lowest, y_dtype.lowest)
    scale = ordinal_scale(x_dtype, y_dtype)
    exact = x_dtype.kind in (Kind.INT, Kind.BOOL)
    summed = bool(golden.more or actual.more)
    wide = exact or summed or FLOAT64 in (CODES[golden.dtype], CODES[actual.dtype])
    totals = Totals.zero()
    size = component_region.size
    for start, stop, x_side, y_side in windows(golden, actual):
        if wide:
            scan64(x_side, y_side, rows, limits, exact, start, stop, totals)
        else:
            scan32(x_side, y_side, rows, limits, scale, start, stop, totals)

    position = totals.position
    index = Walk.of(component_shape, component_region).flat_index(position) // components if position >= 0 else -1
    ulp = -1 if summed else representable_distance(x_dtype, y_dtype, totals.distance)
    width = 0 if exact else 52 if wide else 23
    mantissas = tuple(mantissa_bits(bits, width) for bits in totals.bits)
    stats = _stats(size, totals, index, ulp, mantissas, _row_sums(rows))
    return replace(stats, n_over_tolerance=stats.n - stats.n_equal) if exact else stats


def windows(golden: Operand, actual: Operand) -> Iterator[tuple[int, int, KernelOperand, KernelOperand]]:
    """Yield windows of two regions of one shape: start and stop, by the numbers of components, and both sides.

    The memory behind a window is released when the next one is asked for.
    """
    if not golden.region.size:
        return
    components = components_of(golden.dtype)
    x_reader, y_reader = _reader(golden, components), _reader(actual, components)
    size = golden.region.size * components
    spans: Iterable[tuple[int, int]] = ((0, size),)
    is_copied = any(isinstance(reader, (SumOperand, WindowOperand)) for reader in (x_reader, y_reader))
    is_mapped = any(side.rows is not None or side.release is not _release_nothing for side in (golden, actual))
    if is_copied or is_mapped:
        spans = _spans(x_reader.reach, y_reader.reach, size, SUM_WINDOW if is_copied else size)
    for start, stop in spans:
        yield start, stop, x_reader.window(start, stop), y_reader.window(start, stop)
        x_reader.release(start, stop)
        y_reader.release(start, stop)


def _in_components(shape: tuple[int, ...], region: Region, components: int) -> tuple[tuple[int, ...], Region]:
    """Return a shape and a region in it with the last axis in components, two for a complex element."""
    if components == 1:
        return shape, region
    if not shape:
        return (components,), Region.whole((components,))
    scale = (1,) * (len(shape) - 1) + (components,)

    def scale_sizes(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size * factor for size, factor in zip(sizes, scale, strict=True))

    return scale_sizes(shape), Region(scale_sizes(region.start), scale_sizes(region.shape))


def _check_alike(summand: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless two summands have one (dtype, shape)."""
    if summand != other:
        raise ValueError("summands differ: {} {} in one place and {} {} in another".format(*summand, *other))


def _reader(operand: Operand, components: int) -> OperandReader:
    """Return the reader of an operand's elements, or of the real and imaginary parts of complex ones."""

    def reader_of(each: Operand) -> OperandReader:
        if each.rows is not None:
            return _reader_of_rows(each, each.rows, components)
        return StoredOperand(
            _kernel_operand(each, components), lambda start, stop: each.release(start // components, stop // components)
        )

    if not operand.more:
        return reader_of(operand)
    exact = DTYPES[operand.dtype].kind in (Kind.INT, Kind.BOOL)
    return SumOperand([reader_of(each) for each in (operand, *operand.more)], exact, operand.region.size * components)


def _reader_of_rows(operand: Operand, rows: GatheredRows, components: int) -> WindowOperand | ScatteredRows:
    region = operand.region
    dense = _in_components(region.shape, Region.whole(region.shape), components)
    reach = Reach(operand.bits.itemsize // components, CODES[operand.dtype], Walk.of(*dense))
    width = math.prod(region.shape[1:]) * components
    addresses = rows.addresses(region)
    if addresses is not None:
        side = ScatteredOperand(addresses, width, reach.itemsize, reach.code)
        first = region.start[0]
        return ScatteredRows(reach, width, side, lambda begin, end: rows.prepare(first + begin, first + end))

    def read(begin: int, end: int) -> npt.NDArray[np.uint8]:
        return rows.read(Region((region.start[0] + begin, *region.start[1:]), (end - begin, *region.shape[1:])))

    return WindowOperand(reach, width, read)


def _kernel_operand(operand: Operand, components: int) -> KernelOperand:
    data = np.asarray(operand.bits).view(np.uint8)
    itemsize = operand.bits.itemsize // components
    return KernelOperand(
        data, itemsize, CODES[operand.dtype], Walk.of(*_in_components(operand.shape, operand.region, components))
    )


def _rows(whole_shape: tuple[int, ...], region: Region) -> Rows:
    group = row_group(whole_shape)
    groups = -(-math.prod(whole_shape[:-1]) // group)
    walk = Walk.of(whole_shape[:-1], Region(region.start[:-1], region.shape[:-1]))
    width = region.shape[-1] if region.shape else 1
    return Rows(width, group, walk, groups)


def _spans(x_side: Reach, y_side: Reach, size: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of windows of up to `most` elements that map few pages each."""
    span = max(side.itemsize * (side.walk.last - side.walk.base + 1) for side in (x_side, y_side))
    window = size * _WINDOW_BYTES // span
    window = min(max(window // BLOCK * BLOCK, min(window, BLOCK), _SMALLEST_WINDOW), most)
    for start in range(0, size, window):
        yield start, min(start + window, size)


def _row_sums(rows: Rows) -> RowSums:
    index = np.flatnonzero(rows.seen)
    return RowSums(rows.group, index, rows.sum_xx[index], rows.sum_dd[index])


def mantissa_bits(used: int, width: int) -> int:
    """Return how many of a mantissa's `width` leading bits are in use; `used` holds the bits set in any value."""
    used &= (1 << width) - 1
    return width - ((used & -used).bit_length() - 1) if used else 0


def _stats(
    n: int, totals: Totals, max_abs_d_index: int, max_ulp: int, mantissas: tuple[int, ...], rows: RowSums
) -> PairStats:
    sum_x, sum_y, sum_xx, sum_yy, sum_xy, sum_d, sum_dd, sum_abs_d, sum_rel_d = totals.sums
    min_x, max_x, min_y, max_y, max_rel_d, max_abs_d, max_abs_d_x, max_abs_d_y = totals.extremes
    n_equal, n_finite, n_over_1k, n_over_5k, n_over_tolerance, *nonfinite = totals.counts
    nan_x, posinf_x, neginf_x, nan_y, posinf_y, neginf_y, n_nonfinite_equal = nonfinite
    return PairStats(
        n=n,
        n_equal=n_equal,
        n_finite=n_finite,
        sum_x=sum_x,
        sum_y=sum_y,
        sum_xx=sum_xx,
        sum_yy=sum_yy,
        sum_xy=sum_xy,
        sum_d=sum_d,
        sum_dd=sum_dd,
        sum_abs_d=sum_abs_d,
        max_abs_d=max(max_abs_d, 0.0),
        max_abs_d_index=max_abs_d_index,
        max_abs_d_x=max_abs_d_x,
        max_abs_d_y=max_abs_d_y,
        min_x=min_x,
        max_x=max_x,
        min_y=min_y,
        max_y=max_y,
        sum_rel_d=sum_rel_d,
        max_rel_d=max_rel_d,
        n_over_1k=n_over_1k,
        n_over_5k=n_over_5k,
        n_over_tolerance=n_over_tolerance,
        max_ulp=max_ulp,
        nan_x=nan_x,
        posinf_x=posinf_x,
        neginf_x=neginf_x,
        nan_y=nan_y,
        posinf_y=posinf_y,
        neginf_y=neginf_y,
        n_nonfinite_equal=n_nonfinite_equal,
        mantissa_x=mantissas[0],
        mantissa_y=mantissas[1],
        rows=rows,
    )

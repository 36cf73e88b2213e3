"""Layouts that a dump states: from what each axis of ranks does to a tensor to where each rank's part lies."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aclcmp.labeling.layout import Layout, Partial, Placement, Replicate, Shard, Spans, dtensor_placement


@dataclass(frozen=True, slots=True)
class AxisSplit:
    """Effect of one axis of ranks on a tensor: rank `rank` of `size` along it holds a slice, a summand or all."""

    rank: int
    size: int
    dim: int | None = None
    """The dimension that is sliced, in order of ranks."""
    summed: bool = False

    zigzag: bool = False
    """True where rank i holds chunks i and 2 * size - 1 - i of 2 * size."""

    @property
    def placement(self) -> Placement:
        """The same in torch's terms."""
        return Partial() if self.summed else Replicate() if self.dim is None else Shard(self.dim, zigzag=self.zigzag)


def layouts_from_splits(
    splits: Mapping[int, Sequence[AxisSplit]], shapes: Mapping[int, tuple[int, ...]]
) -> dict[int, Layout] | None:
    """Return each rank's layout of one label, from its splits (outermost axis first) and its local shape.

    Empty where no axis splits it; None where the splits contradict each other or the shapes.
    """
    stated = {tuple((split.placement, split.size) for split in each) for each in splits.values()}
    ndims = {len(shape) for shape in shapes.values()}
    if len(stated) != 1 or len(ndims) != 1:
        return None
    if stated == {()}:
        return {}
    any_rank = next(iter(splits))
    sliced = sorted({split.dim for split in splits[any_rank] if split.dim is not None})
    out_of_range = any(dim >= len(shapes[any_rank]) for dim in sliced)
    if out_of_range or any(not 0 <= split.rank < split.size for each in splits.values() for split in each):
        return None
    placements = _placements(splits)
    if not sliced:
        return {rank: Layout(placements[rank]) for rank in splits}
    spans: dict[int, list[Spans]] = {rank: [((0, size),) for size in shapes[rank]] for rank in splits}
    global_shapes = {rank: list(shapes[rank]) for rank in splits}
    for dim in sliced:
        sizes = {rank: shapes[rank][dim] for rank in splits}
        along = {rank: [split for split in splits[rank] if split.dim == dim] for rank in splits}
        slices = _slice_dimension(along, sizes)
        if slices is None:
            return None
        global_size, spans_of = slices
        for rank in splits:
            spans[rank][dim] = spans_of[rank]
            global_shapes[rank][dim] = global_size
    return {rank: Layout(placements[rank], tuple(global_shapes[rank]), tuple(spans[rank])) for rank in splits}


def _slice_dimension(
    splits: Mapping[int, Sequence[AxisSplit]], sizes: Mapping[int, int]
) -> tuple[int, dict[int, Spans]] | None:
    """Return the global size of one dimension and each rank's spans in it; None where the local sizes do not fit.

    `splits` are those of this dimension, at least one for each rank, `sizes` the local sizes.
    """
    numbers = {rank: _slice_number(each) for rank, each in splits.items()}
    axes = next(iter(splits.values()))
    count = math.prod(split.size for split in axes)
    pairs = {(numbers[rank], sizes[rank]) for rank in splits}
    size_of_slice = dict(pairs)
    begins = _slice_begins(size_of_slice, count) if len(pairs) == len(size_of_slice) else None
    if begins is None:
        return None
    if not any(split.zigzag for split in axes):
        return begins[count], {rank: ((begins[numbers[rank]], sizes[rank]),) for rank in splits}
    size = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1 or size % 2 or len(axes) > 1:
        return None
    half = size // 2
    return begins[count], {
        rank: ((number * half, half), ((2 * count - 1 - number) * half, half)) for rank, number in numbers.items()
    }


def _placements(splits: Mapping[int, Sequence[AxisSplit]]) -> dict[int, tuple[Placement, ...]]:
    """Return each rank's placements; they name the ranks along each axis where several axes tell all ranks apart."""
    coordinates = {rank: tuple(split.rank for split in each) for rank, each in splits.items()}
    if len(set(coordinates.values())) < len(coordinates) or max(map(len, coordinates.values())) < 2:
        return {rank: tuple(split.placement for split in each) for rank, each in splits.items()}
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for rank in sorted(coordinates, key=lambda rank: coordinates[rank]):
        for axis in range(len(coordinates[rank])):
            groups[axis, _without_axis(coordinates[rank], axis)].append(rank)
    return {
        rank: tuple(
            dtensor_placement(split.placement, groups[axis, _without_axis(coordinates[rank], axis)])
            for axis, split in enumerate(each)
        )
        for rank, each in splits.items()
    }


def _without_axis(coordinates: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*coordinates[:axis], *coordinates[axis + 1 :])


def _slice_number(splits: Sequence[AxisSplit]) -> int:
    """Return which slice a rank holds along a dimension that several axes slice, the outermost first."""
    number = 0
    for split in splits:
        number = number * split.size + split.rank
    return number


def _slice_begins(size_of_slice: Mapping[int, int], count: int) -> dict[int, int] | None:
    """Return where each of `count` slices begins, and at `count` where the last ends; None where a size is unknown."""
    if len(size_of_slice) == count:
        return dict(enumerate(itertools.accumulate((size_of_slice[k] for k in range(count)), initial=0)))
    if len(set(size_of_slice.values())) != 1:
        return None
    size = next(iter(size_of_slice.values()))
    return {number: number * size for number in (*size_of_slice, count)}

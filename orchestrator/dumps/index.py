"""From the tensors that were found in another tool's dump to shards' indices, as the comparison takes them."""

from __future__ import annotations

import itertools
import math
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.layout import Layout, Partial, Placement, Replicate, Shard, Spans, dtensor_placement
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped, printable
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.dumps.order import Order


@dataclass(frozen=True, slots=True)
class Split:
    """What one axis of ranks does to a tensor: rank `rank` of `size` along it holds a slice, a summand or all."""

    rank: int
    size: int
    dim: int | None = None
    """The dimension that is sliced, in order of ranks."""
    summed: bool = False

    zigzag: bool = False
    """Whether rank i holds chunks i and 2 * size - 1 - i of 2 * size."""

    @property
    def placement(self) -> Placement:
        """In torch's terms."""
        return Partial() if self.summed else Replicate() if self.dim is None else Shard(self.dim, zigzag=self.zigzag)


@dataclass(frozen=True, slots=True)
class Found:
    """A tensor of a dump, or the place of one that cannot be read."""

    rank: int
    task: int
    name: str
    tensor: DumpedTensor | NotDumped
    path: str
    """The file that holds it, or tells of it."""
    time: float = 0.0
    """When that was written, in seconds since the epoch."""
    splits: tuple[Split, ...] | None = None
    """What each axis of ranks does to it, outermost first; None where the dump does not say."""

    @property
    def label(self) -> str:
        """The name on one line that any terminal takes, never empty."""
        return printable(self.name) or "tensor"


@dataclass(frozen=True, slots=True)
class DumpIndex:
    """A dump as one side of a comparison."""

    tool: str
    """Who wrote it, in words."""
    indices: tuple[ShardIndex, ...]
    """One for each rank, ascending; every label names a file, and `dumped` tells where in it the tensor lies."""
    notes: tuple[str, ...] = ()
    order: Order = Order.CALLS
    """What the order of the labels rests on."""


def dump_index(
    tool: str, folder: Path, side: str, found: Sequence[Found], notes: Sequence[str] = (), world_size: int = 0
) -> DumpIndex:
    """Index what was found; tensors of a rank are labels in the order given.

    `world_size` is what the dump says of it; more ranks may be there, and fewer are then noted.
    """
    by_rank: dict[int, list[tuple[Found, int]]] = defaultdict(list)
    occurrences: dict[tuple[int, int, str], int] = defaultdict(int)
    for each in found:
        key = each.rank, each.task, each.label
        by_rank[each.rank].append((each, occurrences[key]))
        occurrences[key] += 1
    ranks = max([world_size, *(rank + 1 for rank in by_rank)])
    layouts, unclear = _layouts(by_rank)
    absent = [rank for rank in range(ranks) if found and rank not in by_rank]
    lost = []
    if absent:
        told = ", ".join(map(str, absent[:8])) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
        lost = [f"{printable(folder.name)}: no dump of rank {told} of {ranks}"]
    host = socket.gethostname()
    indices = []
    for rank in sorted(by_rank):
        records = []
        dumped: dict[int, DumpedTensor | NotDumped] = {}
        for seq, (each, occurrence) in enumerate(by_rank[rank]):
            dumped[seq] = each.tensor
            name = each.label
            layout = layouts.get((rank, each.task, name, occurrence))
            records.append(
                LabelRecord(each.task, name, occurrence, side, seq, each.time, "", layout=layout, tensor_path=each.path)
            )
        header = ShardHeader(folder.name, rank, ranks, rank, 0, host, 0, 0.0)
        indices.append(ShardIndex(ShardFiles(folder, rank), header, tuple(records), dumped=dumped))
    empty = [] if found else [f"{printable(folder.name)}: the dump holds no tensor"]
    return DumpIndex(tool, tuple(indices), (*notes, *unclear, *lost, *empty))


_Label = tuple[int, str, int]
"""Task, name, occurrence."""


def _layouts(
    by_rank: Mapping[int, Sequence[tuple[Found, int]]],
) -> tuple[dict[tuple[int, int, str, int], Layout], list[str]]:
    """The layouts of the labels of which the dump says how they are split, and what is wrong with others in words."""
    labels: dict[_Label, dict[int, Found]] = defaultdict(dict)
    for rank, several in by_rank.items():
        for each, occurrence in several:
            if each.splits is not None and isinstance(each.tensor, DumpedTensor):
                labels[each.task, each.label, occurrence][rank] = each
    layouts: dict[tuple[int, int, str, int], Layout] = {}
    unclear = []
    for (task, name, occurrence), ranks in labels.items():
        placed = _placed(ranks)
        if placed is None:
            unclear.append(f"{name}: the dump's words on its layout do not fit its shapes; it is inferred")
            continue
        layouts |= {(rank, task, name, occurrence): layout for rank, layout in placed.items()}
    more = [f"{len(unclear) - 8} more labels' layouts do not fit their shapes"] if len(unclear) > 8 else []
    return layouts, unclear[:8] + more


def _placed(ranks: Mapping[int, Found]) -> dict[int, Layout] | None:
    """Each rank's layout of one label; None where what is said cannot be."""
    shapes = {rank: each.tensor.shape for rank, each in ranks.items() if isinstance(each.tensor, DumpedTensor)}
    splits = {rank: each.splits or () for rank, each in ranks.items()}
    words = {tuple((split.placement, split.size) for split in several) for several in splits.values()}
    dims = {len(shape) for shape in shapes.values()}
    if len(words) != 1 or len(dims) != 1:
        return None
    ((said, ndim),) = {(each, n) for each in words for n in dims}
    placements = _over_their_ranks(splits)
    sliced = sorted({split.dim for split in next(iter(splits.values())) if split.dim is not None})
    if any(dim >= ndim for dim in sliced) or any(
        not 0 <= s.rank < s.size for several in splits.values() for s in several
    ):
        return None
    if not said:
        return {}
    if not sliced:
        return {rank: Layout(placements[rank]) for rank in ranks}
    spans: dict[int, list[Spans]] = {rank: [((0, size),) for size in shapes[rank]] for rank in ranks}
    wholes = {rank: list(shapes[rank]) for rank in ranks}
    for dim in sliced:
        along = {rank: [split for split in splits[rank] if split.dim == dim] for rank in ranks}
        numbers = {rank: _number(several) for rank, several in along.items()}
        count = math.prod(split.size for split in next(iter(along.values())))
        sizes = {(numbers[rank], shapes[rank][dim]) for rank in ranks}
        begins = _begins(dict(sizes), count) if len(sizes) == len(dict(sizes)) else None
        if begins is None:
            return None
        zigzag = any(split.zigzag for several in along.values() for split in several)
        equal = {size for _, size in sizes}
        if zigzag and (len(equal) > 1 or max(equal) % 2 or max(map(len, along.values())) > 1):
            return None
        for rank in ranks:
            size = shapes[rank][dim]
            spans[rank][dim] = ((begins[numbers[rank]], size),)
            if zigzag:
                half, number = size // 2, numbers[rank]
                spans[rank][dim] = ((number * half, half), ((2 * count - 1 - number) * half, half))
            wholes[rank][dim] = begins[count]
    return {rank: Layout(placements[rank], tuple(wholes[rank]), tuple(spans[rank])) for rank in ranks}


def _over_their_ranks(splits: Mapping[int, Sequence[Split]]) -> dict[int, tuple[Placement, ...]]:
    """Each rank's placements, with the ranks along each of several axes where no two ranks have one place on all."""
    places = {rank: tuple(split.rank for split in several) for rank, several in splits.items()}
    if len(set(places.values())) < len(places) or max(map(len, places.values())) < 2:
        return {rank: tuple(split.placement for split in several) for rank, several in splits.items()}
    along: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for rank in sorted(places, key=lambda rank: places[rank]):
        for axis in range(len(places[rank])):
            along[axis, _but(places[rank], axis)].append(rank)
    return {
        rank: tuple(
            dtensor_placement(split.placement, along[axis, _but(places[rank], axis)])
            for axis, split in enumerate(several)
        )
        for rank, several in splits.items()
    }


def _but(place: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*place[:axis], *place[axis + 1 :])


def _number(splits: Sequence[Split]) -> int:
    """Which slice a rank holds along a dimension that several axes slice, the outermost first."""
    number = 0
    for split in splits:
        number = number * split.size + split.rank
    return number


def _begins(sizes: Mapping[int, int], count: int) -> dict[int, int] | None:
    """Where each slice begins, and at `count` where the last ends; None where a slice's size is not known."""
    if len(sizes) == count:
        return dict(enumerate(itertools.accumulate((sizes[k] for k in range(count)), initial=0)))
    if len(set(sizes.values())) != 1:
        return None
    size = next(iter(sizes.values()))
    return {number: number * size for number in (*sizes, count)}

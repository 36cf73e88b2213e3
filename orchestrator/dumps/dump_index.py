"""From the tensors of another tool's dump to shards' indices, as the comparison takes them."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aclcmp.labeling.layout import Layout
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped, printable
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.dumps.axis_splits import AxisSplit, layouts_from_splits
from aclcmp.orchestrator.dumps.order import OrderBasis

_MOST_LISTED = 8


@dataclass(frozen=True, slots=True)
class DumpEntry:
    """A tensor of a dump: whose it is, and where its bytes lie or why they cannot be read."""

    rank: int
    step: int
    """Its task, in the words of labels."""
    name: str
    tensor: DumpedTensor | NotDumped
    path: str
    """The file that holds or names it."""
    time: float = 0.0
    """When that file was written, in seconds since the epoch."""
    splits: tuple[AxisSplit, ...] | None = None
    """The effect of each axis of ranks on it, outermost first; None where the dump does not say."""
    rows: RowTable | None = None
    """Names of its rows, where the dump tells them; one object for all tensors of a forward."""

    @property
    def label(self) -> str:
        """The name on one line that any terminal takes, never empty."""
        return printable(self.name) or "tensor"


@dataclass(frozen=True, slots=True)
class DumpContent:
    """All tensors of a dump."""

    entries: Sequence[DumpEntry]
    """Those of one rank in the order in which they shall be labels."""
    notes: Sequence[str] = ()
    world_size: int = 0
    """The number of ranks that the dump states, 0 where it states none."""
    order: OrderBasis = OrderBasis.CALLS
    """What the order of the entries rests on."""


@dataclass(frozen=True, slots=True)
class DumpIndex:
    """A dump as one side of a comparison."""

    tool: str
    """The name of the tool that wrote it."""
    indices: tuple[ShardIndex, ...]
    """One for each rank, ascending; every label names a file, and `dumped` tells where in it the tensor lies."""
    notes: tuple[str, ...] = ()
    order: OrderBasis = OrderBasis.CALLS
    """What the order of the labels rests on."""


class _EntryKey(NamedTuple):
    """A label of any rank."""

    task: int
    name: str
    occurrence: int


def build_index(tool: str, folder: Path, side: str, content: DumpContent) -> DumpIndex:
    """Make one shard index for each rank of a dump, and note the ranks between them that are missing."""
    by_rank: dict[int, list[tuple[_EntryKey, DumpEntry]]] = defaultdict(list)
    counts: dict[tuple[int, int, str], int] = defaultdict(int)
    for entry in content.entries:
        counted = entry.rank, entry.step, entry.label
        by_rank[entry.rank].append((_EntryKey(entry.step, entry.label, counts[counted]), entry))
        counts[counted] += 1
    world_size = max([content.world_size, *(rank + 1 for rank in by_rank)])
    layouts, unclear = _stated_layouts(by_rank)
    host = socket.gethostname()
    indices = []
    for rank in sorted(by_rank):
        records = []
        numbers: dict[RowTable, int] = {}
        for seq, (key, entry) in enumerate(by_rank[rank]):
            record = LabelRecord(
                *(key.task, key.name, key.occurrence, side, seq, entry.time, ""),
                layout=layouts.get((rank, key)),
                tensor_path=entry.path,
                rows=-1 if entry.rows is None else numbers.setdefault(entry.rows, len(numbers)),
            )
            records.append(record)
        dumped = {seq: entry.tensor for seq, (_, entry) in enumerate(by_rank[rank])}
        tables = {number: table for table, number in numbers.items()}
        header = ShardHeader(folder.name, rank, world_size, rank, 0, host, 0, 0.0)
        indices.append(ShardIndex(ShardFiles(folder, rank), header, tuple(records), dumped=dumped, rows=tables))
    notes = [*content.notes, *unclear]
    if not by_rank:
        notes.append(f"{printable(folder.name)}: the dump holds no tensor")
    elif absent := [rank for rank in range(world_size) if rank not in by_rank]:
        listed = ", ".join(map(str, absent[:_MOST_LISTED]))
        more = f" and {len(absent) - _MOST_LISTED} more" if len(absent) > _MOST_LISTED else ""
        notes.append(f"{printable(folder.name)}: no dump of rank {listed}{more} of {world_size}")
    return DumpIndex(tool, tuple(indices), tuple(notes), content.order)


def _stated_layouts(
    by_rank: dict[int, list[tuple[_EntryKey, DumpEntry]]],
) -> tuple[dict[tuple[int, _EntryKey], Layout], list[str]]:
    """Return the layouts that the dump states, by rank and label, and notes on those that cannot be."""
    splits: dict[_EntryKey, dict[int, tuple[AxisSplit, ...]]] = defaultdict(dict)
    shapes: dict[_EntryKey, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for rank, labels in by_rank.items():
        for key, entry in labels:
            if entry.splits is not None and isinstance(entry.tensor, DumpedTensor):
                splits[key][rank], shapes[key][rank] = entry.splits, entry.tensor.shape
    layouts: dict[tuple[int, _EntryKey], Layout] = {}
    unclear = []
    for key in splits:
        stated = layouts_from_splits(splits[key], shapes[key])
        if stated is None:
            unclear.append(f"{key.name}: the layout that the dump states does not fit its shapes; it is inferred")
        else:
            layouts |= {(rank, key): layout for rank, layout in stated.items()}
    hidden = len(unclear) - _MOST_LISTED
    more = [f"{hidden} more labels' layouts do not fit their shapes"] if hidden > 0 else []
    return layouts, unclear[:_MOST_LISTED] + more

"""The labels of one rank over all its processes, each with its tensor: in a shard, or in a file of the library."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from aclcmp.labeling.layout import Layout
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.labeling.shard.record import REFERENCE, LabelRecord
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey, RowPlaces, Source


@dataclass(slots=True)
class RankLabel:
    """One side of a label on one rank. `dump` is the result for the file that it names; None if it names none.

    Nothing changes it; it is not frozen, for that takes three times as long to make, and there are millions.
    """

    key: LabelKey
    record: LabelRecord
    path: str
    """The file that holds its bytes: the shard's, or the dumped one."""
    dump: DumpedTensor | NotDumped | None = None
    host: str = ""
    """Host that has the file."""
    rank: int = 0
    rows: RowTable | None = None
    """Names of its rows, where it has some."""
    places: RowPlaces | None = None
    """Places of its rows, where it is gathered from several labels."""

    @property
    def problem(self) -> str:
        """Reason why it cannot be compared, as it failed or its file is not there or cannot be read; "" if it can."""
        return self.record.error or (self.dump.reason if isinstance(self.dump, NotDumped) else "")

    @property
    def stored(self) -> DumpedTensor | LabelRecord:
        """What tells the type, the shape and the place of the stored tensor."""
        return self.dump if isinstance(self.dump, DumpedTensor) else self.record

    @property
    def dtype(self) -> str:
        """Element type by torch's name; "" where there is no tensor."""
        return self.stored.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as stored."""
        return self.stored.shape

    @property
    def in_blocks(self) -> bool:
        """True if the tensor is stored in FRACTAL_NZ's order."""
        return isinstance(self.dump, DumpedTensor) and self.dump.fractal_nz

    @property
    def content(self) -> object:
        """A value that is equal for equal tensors, as far as the index tells; None where it does not."""
        record = self.record
        if self.places is not None:
            checksums = self.places.checksum
            return (record.dtype, record.shape, checksums.tobytes()) if checksums.all() else None
        return (record.dtype, record.shape, record.nbytes, record.checksum) if record.offset is not None else None

    @property
    def source(self) -> Source:
        """The stored tensor."""
        if isinstance(self.dump, DumpedTensor):
            return Source(self.path, self.dump.offset, self.dump.dtype, self.dump.shape, rank=self.rank)
        record = self.record
        return Source(
            self.path,
            record.offset or 0,
            record.dtype,
            record.shape,
            record.capture,
            record.nbytes,
            self.rank,
            record.checksum if self.places is None else None,
            self.places,
        )

    @property
    def facts(self) -> SideFacts:
        """The facts of it for the report."""
        record = self.record
        device = "dumped by the library" if record.tensor_path else record.device
        return SideFacts(
            self.path,
            self.dtype,
            self.shape,
            device,
            record.call_site,
            record.seq,
            record.time,
            record.capture,
            record.inputs,
        )


@dataclass(slots=True)
class SeenLabel(RankLabel):
    """A label whose stored elements count as a tensor of another shape; the report tells it as it was recorded."""

    recorded: SideFacts | None = None

    @property
    def facts(self) -> SideFacts:
        """The facts as they were recorded."""
        assert self.recorded is not None
        return self.recorded


def see_label(label: RankLabel, shape: tuple[int, ...], layout: Layout | None) -> RankLabel:
    """Return the stored elements of a label as a tensor of another shape, with the layout that this has."""
    record = replace(label.record, shape=shape, layout=layout)
    dump = replace(label.dump, shape=shape) if isinstance(label.dump, DumpedTensor) else label.dump
    return SeenLabel(label.key, record, label.path, dump, label.host, label.rank, label.rows, recorded=label.facts)


Keys = dict[tuple[int, str, int], LabelKey]
"""Keys that ranks share, so that each exists once."""


def labels_by_rank(indices: Iterable[ShardIndex], keys: Keys | None = None) -> Iterator[tuple[int, list[RankLabel]]]:
    """Yield each rank's labels over all its processes, the lowest rank first."""
    by_rank: dict[int, list[ShardIndex]] = defaultdict(list)
    for index in indices:
        by_rank[index.header.rank].append(index)
    for rank in sorted(by_rank):
        yield rank, merge_processes(by_rank[rank], keys)


def merge_processes(indices: Sequence[ShardIndex], keys: Keys | None = None) -> list[RankLabel]:
    """Return one rank's labels over all its processes, in the order of their starts; occurrences and seq go on.

    A process that labelled both sides of an id starts them at the same number, so that its own two sides pair, whatever
    an earlier process left half done. References start at the number of its golden labels, and move no other side.
    """
    keys = {} if keys is None else keys
    if len(indices) == 1:
        return _labels_of_index(indices[0], indices[0].records, keys)
    merged: list[RankLabel] = []
    next_free: dict[tuple[int, str, str], int] = defaultdict(int)
    for index in sorted(indices, key=lambda i: (i.header.started, i.header.process)):
        here: dict[tuple[int, str], set[str]] = defaultdict(set)
        for record in index.records:
            here[record.task, record.data_id].add(record.side)
        base = {
            (*name, side): max(next_free[(*name, each)] for each in _counted_with(side, sides))
            for name, sides in here.items()
            for side in sides
        }
        first_seq = len(merged)
        counted = []
        for record in index.records:
            name = (record.task, record.data_id, record.side)
            occurrence = record.occurrence + base[name]
            next_free[name] = max(next_free[name], occurrence + 1)
            counted.append(replace(record, occurrence=occurrence, seq=first_seq + record.seq))
        merged += _labels_of_index(index, counted, keys)
    return merged


def _counted_with(side: str, sides: set[str]) -> set[str]:
    """Return the sides after whose last occurrences a side goes on, of those that a process labelled."""
    if side == REFERENCE and "pta" not in sides:
        return {REFERENCE}
    return sides - {REFERENCE}


def _labels_of_index(index: ShardIndex, counted: Sequence[LabelRecord], keys: Keys) -> list[RankLabel]:
    """Return an index's labels; in `counted` their occurrences and seq go over all processes."""
    host, rank = index.header.host, index.header.rank
    paths: dict[int, str] = {}
    found = []
    for own, record in zip(index.records, counted, strict=True):
        name = record.task, record.data_id, record.occurrence
        key = keys.get(name)
        if key is None:
            key = keys[name] = LabelKey(*name)
        if record.tensor_path:
            dump = index.dumped.get(own.seq) or NotDumped(f"the dumped file {record.tensor_path} was not looked for")
            path = dump.path if isinstance(dump, DumpedTensor) else record.tensor_path
            in_rows = isinstance(dump, DumpedTensor) and not dump.fractal_nz
            rows = index.rows.get(own.rows) if in_rows else None
            found.append(RankLabel(key, record, path, dump, host, rank, rows))
            continue
        if record.segment not in paths:
            paths[record.segment] = str(index.path(record))
        found.append(RankLabel(key, record, paths[record.segment], None, host, rank, index.rows.get(own.rows)))
    return found


def golden_chain(labels: Sequence[RankLabel]) -> list[tuple[LabelKey, float]]:
    """Return a rank's labels in golden order, with their times; one without a golden side follows the one before."""
    golden = {each.key for each in labels if each.record.side == "pta"}
    chain: dict[LabelKey, float] = {}
    orphans: dict[LabelKey | None, list[tuple[LabelKey, float]]] = defaultdict(list)
    before: LabelKey | None = None
    for each in labels:
        if each.record.side == "pta":
            chain[each.key] = each.record.time
        elif each.key not in golden:
            orphans[before].append((each.key, each.record.time))
            continue
        before = each.key
    if not orphans:
        return list(chain.items())
    ordered = orphans.pop(None, [])
    for key, time in chain.items():
        ordered.append((key, time))
        ordered.extend((orphan, time) for orphan, _ in orphans.get(key, ()))
    return list(dict(ordered).items())


def chains_beside_golden(
    others: Sequence[Sequence[tuple[LabelKey, float]]], goldens: Sequence[Sequence[tuple[LabelKey, float]]]
) -> list[list[tuple[LabelKey, float]]]:
    """Return the chains that ranks without a golden side add: their own labels, each after the golden one before it.

    Labels that golden has too are in golden's order, whatever the order on the other side.
    """
    times = {key: time for chain in goldens for key, time in chain}
    if not times:
        return [list(chain) for chain in others]
    found = []
    for chain in others:
        begin: list[tuple[LabelKey, float]] = []
        for key, _ in chain:
            if key in times:
                found.append(begin)
                begin = [(key, times[key])]
            else:
                begin.append((key, begin[0][1] if begin else -math.inf))
        found.append(begin)
    return [fragment for fragment in found if len(fragment) > 1 or (fragment and fragment[0][0] not in times)]

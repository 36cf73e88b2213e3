"""Indices of a run's shards on this host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aclcmp.labeling.errors import AclcmpError, ShardFormatError
from aclcmp.labeling.shard.record import NO_LABELS, REFERENCE, LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles, shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import RunDir


@dataclass(frozen=True, slots=True)
class UnreadableShard:
    """A shard of which nothing is compared. `why` is a sentence that names the file and says what to do."""

    rank: int
    why: str
    labels: tuple[LabelKey, ...] = ()
    """What its journal says that it held, or does hold."""


@dataclass(frozen=True, slots=True)
class FoundShards:
    """The shards of a run: indices of those that can be read, and the others."""

    indices: Sequence[ShardIndex]
    unreadable: Sequence[UnreadableShard] = ()

    def of_whole_ranks(self) -> FoundShards:
        """Return the same with all shards of a rank of which one cannot be read among the unreadable.

        Occurrences are counted over all processes of a rank, so those of the others would pair with the wrong ones.
        """
        ranks = {each.rank for each in self.unreadable}
        kept = [index for index in self.indices if index.header.rank not in ranks]
        left_out = [index for index in self.indices if index.header.rank in ranks]
        why = {each.rank: each.why for each in self.unreadable}
        beside = [
            UnreadableShard(index.header.rank, why[index.header.rank], _keys(index.records)) for index in left_out
        ]
        return FoundShards(kept, (*self.unreadable, *beside))

    def reasons(self, hosts: Mapping[int, str]) -> dict[int, str]:
        """Return the ranks that have an unreadable shard, each with the reasons; `hosts` are those where ranks ran."""
        by_rank: dict[int, dict[str, None]] = {}
        for each in self.unreadable:
            by_rank.setdefault(each.rank, {})[each.why] = None
        return {
            rank: f"its shard{f' of host {hosts[rank]}' if rank in hosts else ''} cannot be read: {'; '.join(reasons)}"
            for rank, reasons in by_rank.items()
        }


def read_some_indices(run: RunDir) -> FoundShards:
    """Index the shards of a run as `read_indices` does. Raises UsageError where there are some and none can be read."""
    found = read_indices(run)
    if found.unreadable and not found.indices:
        raise UsageError("; ".join(each.why for each in found.unreadable))
    return found


def read_indices(run: RunDir, ranks: frozenset[int] | None = None) -> FoundShards:
    """Index the shards of a run that lie on this host, or those of some ranks; also tell which cannot be read.

    For labels that name a file of the accelerated library the file is looked for, on this host too.
    """
    # here and not above: actors that only compare read by offset, and save the 13 MiB of HDF5
    from aclcmp.labeling.shard.shard_reader import read_shard
    from aclcmp.orchestrator.dumps.atb.find_dumps import FileLabel, find_dumps

    def with_dumps(index: ShardIndex) -> ShardIndex:
        wanted = [
            FileLabel(label.seq, label.task, label.tensor_path, label.time, label.call_site)
            for label in index.records
            if label.tensor_path
        ]
        if not wanted:
            return index
        roots = list(dict.fromkeys(run.dumps_now_at(Path(folder)) for folder in index.header.dump_folders))
        own = frozenset(filter(run.is_of_one_rank, roots))
        found = find_dumps(wanted, index.header.pid, roots, own=own, since=index.header.started)
        return replace(index, dumped=found)

    indices: list[ShardIndex] = []
    unreadable: list[UnreadableShard] = []
    for files in shards_in(run.shards):
        if ranks is not None and files.rank not in ranks:
            continue
        try:
            index = read_shard(files)
            if index.header.run_id not in ("", run.run_id):
                raise ShardFormatError(
                    f"{files.folder / files.stem} was written by run {index.header.run_id}, not by this one "
                    f"({run.run_id}): put its own files back"
                )
            indices.append(with_dumps(index))
        except (AclcmpError, OSError) as error:
            unreadable.append(UnreadableShard(files.rank, str(error), _labels_told(files, run.run_id)))
    return FoundShards(indices, unreadable)


def _labels_told(files: ShardFiles, run_id: str) -> tuple[LabelKey, ...]:
    """Return the labels of which the journal of an unreadable shard tells; none where it is another shard's."""
    from aclcmp.labeling.shard.journal import read_journal

    try:
        journal = read_journal(files.journal)
    except (AclcmpError, OSError):
        return ()
    own = journal.header.rank == files.rank and journal.header.run_id in ("", run_id)
    return _keys(journal.records) if own else ()


def _keys(records: Sequence[LabelRecord]) -> tuple[LabelKey, ...]:
    """Return the labels of records; all records of one that has rows are one label."""
    keys: dict[LabelKey, None] = {}
    with_rows: set[str] = set()
    for record in records:
        is_further = record.rows >= 0 and record.data_id in with_rows
        if record.side not in (*NO_LABELS, REFERENCE) and not is_further:
            keys[LabelKey(record.task, record.data_id, record.occurrence)] = None
        if record.rows >= 0:
            with_rows.add(record.data_id)
    return tuple(keys)

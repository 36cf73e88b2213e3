"""Source of the labels of one side of a comparison: a run of ours, or another tool's dump."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.run_record import RunRecord, has_failure
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.run.shards import read_some_indices


@dataclass(frozen=True, slots=True)
class LabelSource:
    """Labels of one side, and facts about them for people."""

    root: Path
    indices: tuple[ShardIndex, ...]
    world_size: int
    words: str
    """Description: "8 ranks, run 20260101-120000", "msprobe, 2 ranks"."""
    failed: bool = False
    """True if anything went wrong while its ranks ran."""
    notes: tuple[str, ...] = ()
    lost: Mapping[int, str] = field(default_factory=dict)
    """Ranks of which a shard cannot be read, each with the reason; of them there are no indices."""
    order: str = "calls"
    """Basis of the order of its labels: "calls", "times" of files, or "names"."""
    is_local: bool = False
    """True if each label was computed from golden's values: what it is off by is its own error."""


def open_source(folder: Path, side: str, scratch: Path) -> LabelSource:
    """Open a run directory or another tool's dump on this host as `side`; copies go below `scratch`.

    Raises UsageError when it is neither, or cannot be read; where only a shard cannot, its rank is lost.
    """
    # here and not above: most commands read no foreign dump
    from aclcmp.orchestrator.dumps.registry import read_dump

    with without_collection():  # half of the time where a dump has many labels
        dump = read_dump(folder, side, scratch)
    if dump is not None:
        ranks = max((index.header.world_size for index in dump.indices), default=0)
        opened = LabelSource(
            folder.absolute(),
            dump.indices,
            ranks,
            f"{dump.tool}, {_ranks(ranks)}",
            notes=dump.notes,
            order=dump.order.value,
        )
    else:
        run, record = open_run(folder)
        found = read_some_indices(run).of_whole_ranks()
        words = f"{_ranks(len(record.ranks))}, run {record.run_id}"
        opened = LabelSource(
            run.root,
            tuple(found.indices),
            world_size(found.indices, record),
            words,
            has_failure(record),
            lost=found.reasons(record.hosts),
            is_local=bool(record.golden) and not record.inject,
        )
    if not opened.lost and not any(index.records for index in opened.indices):
        return replace(opened, notes=(*opened.notes, f"{opened.root} holds no tensor"))
    return opened


def _ranks(count: int) -> str:
    return f"{count} rank{'s' * (count != 1)}"


def world_size(indices: Sequence[ShardIndex], record: RunRecord | None) -> int:
    """Return the number of ranks of a run: from its record, or else from its shards."""
    if record is not None and record.ranks:
        return len(record.ranks)
    return max((index.header.rank + 1 for index in indices), default=0)

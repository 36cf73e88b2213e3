"""What is known of a shard before any tensor is read. Needs no HDF5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """A shard's labels in order. `notes` tells in words what is not as it should be; `damaged` counts lost lines.

    `torn` says that it was not closed in order, as where its rank was stopped: labels are read from the journal.
    `dumped` tells what was found for labels that name a file, by `seq`; reading a shard does not look for them.
    """

    files: ShardFiles
    header: ShardHeader
    records: tuple[LabelRecord, ...]
    notes: tuple[str, ...] = ()
    damaged: int = 0
    torn: bool = False
    dumped: Mapping[int, DumpedTensor | NotDumped] = field(default_factory=dict)

    def path(self, record: LabelRecord) -> Path:
        """The file that holds a label's bytes."""
        return self.files.segment(record.segment)

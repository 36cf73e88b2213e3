"""The index of a shard: all that is known before a tensor is read. Needs no HDF5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.margin_table import MarginTable
from aclcmp.labeling.shard.price_table import Price
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.weight_table import WeightTable


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """A shard's labels in order. `notes` are sentences about problems; `damaged` counts the journal's lost lines.

    `torn`: the shard was not closed in order, e.g. because its rank was stopped, and labels come from the journal.
    `dumped` holds the files found for labels that name one, by `seq`; reading a shard does not look for them.
    """

    files: ShardFiles
    header: ShardHeader
    records: tuple[LabelRecord, ...]
    notes: tuple[str, ...] = ()
    damaged: int = 0
    torn: bool = False
    dumped: Mapping[int, DumpedTensor | NotDumped] = field(default_factory=dict)
    rows: Mapping[int, RowTable] = field(default_factory=dict)
    """Names of rows, by the number to which a record's `rows` refers."""
    weights: tuple[WeightTable, ...] = ()
    token_texts: Mapping[int, str] = field(default_factory=dict)
    """The text of tokens, by their ids."""
    margins: tuple[MarginTable, ...] = ()
    """How margins between tokens depend on labels."""
    price: Price | None = None
    """What quantisation costs, of golden that is quantised."""

    def path(self, record: LabelRecord) -> Path:
        """Return the file that holds a label's bytes."""
        return self.files.segment(record.segment)

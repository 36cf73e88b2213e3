"""The record of one label: all but its bytes, and its line in the journal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.layout import Layout
from aclcmp.labeling.shard.dtypes import DTYPES

REFERENCE = "ref"
"""The side that shows only how much of a difference is noise: golden in higher precision."""
ROWS = "rows"
"""The side of no tensor of the model: names of rows, to which labels refer."""
WEIGHTS = "weights"
"""The side of hashes of the model's weights."""
GRADIENTS = "gradients"
"""The side of how margins between two tokens depend on the model's labels."""
SIDES = ("pta", "acl", REFERENCE, ROWS, WEIGHTS, GRADIENTS)
"""Golden, actual, the reference, the names of rows, the hashes of weights, and the gradients of margins."""
NO_LABELS = (ROWS, WEIGHTS, GRADIENTS)
"""The sides of what is no label, but told beside them."""
SIDE_NAMES = {
    "pta": "pta",
    "golden": "pta",
    "acl": "acl",
    "actual": "acl",
    "ref": REFERENCE,
    "reference": REFERENCE,
}
"""Names that users may give a side -> its name in shards."""
LEVELS = ("op", "layer", "model")
"""The part of the model that the accelerated library replaced."""
_FULL = Capture.FULL.value
_CAPTURES = tuple(capture.value for capture in Capture)
_encode = json.JSONEncoder(separators=(",", ":")).encode
"""`json.dumps` would make an encoder for each record."""


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One label of one side, as one rank recorded it.

    A label that failed has `error` set and no bytes (`offset` None). A label that names a file of the accelerated
    library has `tensor_path` set and no bytes. Where `capture` is not "full" the bytes are a `TensorSummary` of the
    tensor that `dtype` and `shape` describe, or its `RowSummaries` where `rows` names the rows that are its first
    dimensions. `checksum` is `payload_checksum` of the bytes.
    """

    task: int
    data_id: str
    occurrence: int
    side: str
    """One of SIDES; "" when the call named no valid side."""
    seq: int
    """Number of the label in its process, from 0."""
    time: float
    """Seconds since the epoch."""
    call_site: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    device: str = ""
    layout: Layout | None = None
    tensor_path: str = ""
    error: str = ""
    segment: int = 0
    offset: int | None = None
    """Byte offset of the dense bytes in the segment's file."""
    nbytes: int = 0
    checksum: int = 0
    level: str = ""
    """One of LEVELS if the user gave it, else ""."""
    capture: str = Capture.FULL.value
    inputs: tuple[str, ...] = ()
    """Ids of the labels from which it was computed, where the user named them."""
    rows: int = -1
    """`seq` of the record of side ROWS in this shard that names its rows; -1 for none."""

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        """Element type and shape of the stored data: the tensor, or the float64 vector of its summaries."""
        return self.stored_as(self.nbytes)

    def stored_as(self, nbytes: int) -> tuple[str, tuple[int, ...]]:
        """Return the same for data of so many bytes."""
        if self.capture == _FULL:
            return self.dtype, self.shape
        return "float64", (nbytes // 8,)

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return _encode(
            [
                self.task,
                self.data_id,
                self.occurrence,
                self.side,
                self.seq,
                self.time,
                self.call_site,
                self.dtype,
                self.shape,
                self.device,
                self.layout.to_json() if self.layout else "",
                self.tensor_path,
                self.error,
                self.segment,
                self.offset,
                self.nbytes,
                self.checksum,
                self.level,
                self.capture,
                self.inputs,
                *((self.rows,) if self.rows >= 0 else ()),
            ]
        )

    @staticmethod
    def from_fields(fields: list[object]) -> LabelRecord:
        """Return the record of a parsed line, every type checked. Raises ValueError.

        A line may lack the last fields, `inputs` and `rows`.
        """
        kinds: tuple[Any, ...] = (
            int,
            str,
            int,
            str,
            int,
            (int, float),
            str,
            str,
            list,
            str,
            str,
            str,
            str,
            int,
            object,
            int,
            int,
            str,
            str,
            list,
            int,
        )
        missing = len(kinds) - len(fields)
        if missing in (1, 2):
            fields = [*fields, *([], -1)[-missing:]]
        if len(fields) != len(kinds) or not all(isinstance(f, k) for f, k in zip(fields, kinds, strict=True)):
            raise ValueError("not a label record")
        values: list[Any] = list(fields)
        numbers = [value for value in (*values[:20], *values[8]) if isinstance(value, int)]
        if not all(0 <= number < 2**64 for number in numbers):
            raise ValueError("a number of a label record is out of range")
        if not all(isinstance(n, int) and n < 2**63 for n in (*values[8], values[0], values[2], values[4])):
            raise ValueError("a number of a label record is out of range")
        if not -1 <= values[20] < (2**63 if values[11] else values[4]):  # rows of a dumped file are in no shard
            raise ValueError("a label record refers to rows that come after it")
        if not all(isinstance(name, str) for name in values[19]):
            raise ValueError("the inputs of a label record are no ids")
        values[8], values[19] = tuple(values[8]), tuple(values[19])
        values[10] = Layout.from_json(values[10]) if values[10] else None
        record = LabelRecord(*values)
        stored = isinstance(record.offset, int) and record.dtype in DTYPES
        if [stored, bool(record.tensor_path), bool(record.error)].count(True) != 1 or record.side not in ("", *SIDES):
            raise ValueError("a label record has either bytes, or a file, or an error")
        if record.level not in ("", *LEVELS) or record.capture not in _CAPTURES:
            raise ValueError("a label record has an unknown level or capture")
        return record

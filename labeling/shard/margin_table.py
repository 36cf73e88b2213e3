"""How margins depend on labels, in a shard: stored as labels of a side of their own, and so as safe as labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.json_table import NO_TABLE, Read, pack_json, read_json
from aclcmp.labeling.shard.record import LabelRecord

MARGIN, GRADIENT = "margin", "gradient"
"""Data ids on the side GRADIENTS: what is known of a margin, as JSON, and each of its gradients before it."""


@dataclass(frozen=True, slots=True)
class Margin:
    """The difference of golden's logits of two tokens, between which a text parts."""

    request: str
    position: int
    """Of the token in its request, from 0."""
    golden: int
    """The token that golden prefers."""
    actual: int


@dataclass(frozen=True, slots=True)
class MarginPoint:
    """A point of the residual stream, and the gradient of the margin with respect to it."""

    name: str
    """The module whose end it is."""
    labels: tuple[str, ...]
    """Ids of the labels whose sum is the stream there."""
    gradient: LabelRecord
    """Of shape [rows, features], with the names of the rows."""


@dataclass(frozen=True, slots=True)
class MarginTable:
    """A margin, and its gradients in the order in which the model computes."""

    margin: Margin
    points: tuple[MarginPoint, ...]


def pack_margin(margin: Margin, points: Sequence[tuple[str, Sequence[str], int]]) -> npt.NDArray[np.uint8]:
    """Return the stored bytes of all but the gradients; a point is its name, its labels and its record's number."""
    facts = [margin.request, margin.position, margin.golden, margin.actual]
    return pack_json([facts, [[name, list(labels), seq] for name, labels, seq in points]])


def read_margin_tables(records: Sequence[LabelRecord], read: Read) -> Iterator[MarginTable]:
    """Yield the margins of a shard; those that cannot be read are left out.

    `records` are those of the side GRADIENTS, in order; `read` raises ShardError or OSError for bytes that are not
    whole.
    """
    gradients = {record.seq: record for record in records if record.data_id == GRADIENT and record.offset is not None}
    for record in records:
        if record.data_id == MARGIN:
            with suppress(*NO_TABLE):
                yield _table(read_json(record, read), gradients)


def _table(told: Any, gradients: dict[int, LabelRecord]) -> MarginTable:
    """Return what was stored. Raises ValueError, KeyError or TypeError for what is no table."""
    (request, position, golden, actual), points = told
    found = []
    for name, labels, seq in points:
        gradient = gradients[int(seq)]
        if len(gradient.shape) != 2 or gradient.rows < 0:
            raise ValueError("a gradient without rows")
        found.append(MarginPoint(str(name), tuple(map(str, labels)), gradient))
    return MarginTable(Margin(str(request), int(position), int(golden), int(actual)), tuple(found))

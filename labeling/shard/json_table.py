"""Tables of a shard that are JSON: how they are packed, read, and what a damaged one raises."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.record import LabelRecord

Read = Callable[[LabelRecord], npt.NDArray[np.generic]]
"""Returns the stored values of a record. Raises ShardError or OSError for bytes that are not whole."""
NO_TABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""Exceptions of reading what is no table: bytes that are not whole (ShardError is an OSError), no JSON, other JSON."""


def pack_json(value: object) -> npt.NDArray[np.uint8]:
    """Return the bytes of a value as JSON."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def read_json(record: LabelRecord, read: Read) -> Any:
    """Return the value that a record has as JSON. Raises one of `NO_TABLE` where there is none."""
    return json.loads(read(record).tobytes())

"""Names of rows in a shard: stored as labels of a side of their own, so that they are as safe as the labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.record import LabelRecord

TABLE, REQUESTS = "rows", "requests"
"""Data ids on the side ROWS: the table of a forward, and names of requests that come for the first time."""


@dataclass(frozen=True, slots=True, eq=False)
class RowTable:
    """Names of the rows of one forward, as a shard has them."""

    numbers: npt.NDArray[np.int32]
    """Shape (n, 3) or (B, T, 3): number of the request in the shard (-1 for padding), position, token id (-1: none)."""
    requests: Sequence[tuple[int, str]]
    """(task, name) of each request of the shard, by its number."""


def pack_requests(first: int, requests: Sequence[tuple[int, str]]) -> npt.NDArray[np.uint8]:
    """Return the stored bytes of requests, (task, name) each, that are numbered from `first` on."""
    return np.frombuffer(json.dumps({"first": first, "requests": requests}).encode(), np.uint8)


def read_row_tables(
    records: Sequence[LabelRecord], read: Callable[[LabelRecord], npt.NDArray[np.generic]]
) -> dict[int, RowTable]:
    """Return the row tables of a shard by the `seq` of their records; those that cannot be read are left out.

    `records` are those of the side ROWS, in order; `read` raises ShardError or OSError for bytes that are not whole.
    """
    requests: dict[int, tuple[int, str]] = {}
    found: dict[int, npt.NDArray[np.int32]] = {}
    for record in records:
        try:
            content = read(record)
            if record.data_id == REQUESTS:
                requests |= _unpack_requests(content)
            elif record.data_id == TABLE and content.dtype == np.int32 and content.shape[-1:] == (3,):
                found[record.seq] = content.astype(np.int32)
        except (ShardError, OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    names = [requests.get(number, (0, f"lost {number}")) for number in range(max(requests, default=-1) + 1)]
    whole = {seq: table for seq, table in found.items() if _is_possible(table, requests)}
    return {seq: RowTable(table, names) for seq, table in whole.items()}


def _unpack_requests(content: npt.NDArray[np.generic]) -> dict[int, tuple[int, str]]:
    told = json.loads(content.tobytes())
    first, requests = int(told["first"]), told["requests"]
    return {first + number: (int(task), str(name)) for number, (task, name) in enumerate(requests)}


def _is_possible(table: npt.NDArray[np.int32], requests: dict[int, tuple[int, str]]) -> bool:
    """Tell whether all requests of a table are known, and all its positions are."""
    rows = table.reshape(-1, 3)
    used = np.unique(rows[:, 0])
    return all(int(number) in requests for number in used if number >= 0) and bool((rows[:, 1] >= 0).all())

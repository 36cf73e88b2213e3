"""Names of rows in a shard: stored as labels of a side of their own, so that they are as safe as the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.json_table import NO_TABLE, Read, pack_json, read_json
from aclcmp.labeling.shard.record import LabelRecord

TABLE, REQUESTS, TOKENS, BLOCKS = "rows", "requests", "tokens", "blocks"
"""Data ids on the side ROWS: the table of a forward, a request that comes for the first time, texts of tokens, and the
blocks of a cache that hold the rows of a table."""


@dataclass(frozen=True, slots=True, eq=False)
class RowTable:
    """Names of the rows of one forward, as a shard has them."""

    numbers: npt.NDArray[np.int32]
    """Shape (n, 3) or (B, T, 3): number of the request in the shard (-1 for padding), position, token id (-1: none)."""
    requests: Mapping[int, tuple[int, str]]
    """(task, name) of each request of the shard, by its number."""
    prompts: Mapping[int, Sequence[int]]
    """Tokens of requests from their first on, as far as they were known when the request came; by its number."""
    blocks: npt.NDArray[np.int32] | None = None
    """Shape (n,): the block of an engine's cache that held each row; None where they come from no cache."""

    def tokens_of_requests(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Yield the number of each request that has rows, and the token ids of its rows by position."""
        rows = self.numbers.reshape(-1, 3)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        numbers, begins = np.unique(rows[:, 0], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(rows[:, 1:], begins[1:]), strict=False):
            if number >= 0:
                yield number, dict(part.tolist())


def pack_request(number: int, request: tuple[int, str], prompt: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return the stored bytes of a request, (task, name), and of the tokens of its prompt as far as they are known."""
    return pack_json({"number": number, "request": request, "prompt": list(prompt)})


def pack_blocks(table: int, blocks: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return the stored numbers of the blocks that hold the rows of the table whose record has that `seq`."""
    return np.concatenate([[table], blocks]).astype(np.int64)


def pack_token_texts(texts: Mapping[int, str]) -> npt.NDArray[np.uint8]:
    """Return the stored bytes of the texts of tokens, by their ids."""
    return pack_json(list(texts.items()))


def read_token_texts(records: Sequence[LabelRecord], read: Read) -> dict[int, str]:
    """Return the texts of tokens that a shard tells; those that cannot be read are left out. `read` as below."""
    found: dict[int, str] = {}
    for record in records:
        if record.data_id == TOKENS:
            with suppress(*NO_TABLE):
                found |= {int(token): str(text) for token, text in read_json(record, read)}
    return found


def read_row_tables(records: Sequence[LabelRecord], read: Read) -> dict[int, RowTable]:
    """Return the row tables of a shard by the `seq` of their records; those that cannot be read are left out.

    `records` are those of the side ROWS, in order; `read` raises ShardError or OSError for bytes that are not whole.
    """
    requests: dict[int, tuple[int, str]] = {}
    prompts: dict[int, Sequence[int]] = {}
    found: dict[int, npt.NDArray[np.int32]] = {}
    blocks: dict[int, npt.NDArray[np.int32]] = {}
    for record in records:
        try:
            if record.data_id == REQUESTS:
                told = read_json(record, read)
                number, (task, name) = int(told["number"]), told["request"]
                requests[number], prompts[number] = (int(task), str(name)), tuple(map(int, told["prompt"]))
            elif record.data_id == TABLE and (content := read(record)).dtype == np.int32 and content.shape[-1:] == (3,):
                found[record.seq] = content.astype(np.int32)
            elif record.data_id == BLOCKS and (content := read(record)).dtype == np.int64 and content.ndim == 1:
                of_table = found.get(int(content[0])) if content.size else None
                if of_table is not None and of_table.shape == (content.size - 1, 3):
                    blocks[int(content[0])] = content[1:].astype(np.int32)
        except NO_TABLE:
            continue
    whole = {seq: table for seq, table in found.items() if _is_possible(table, requests)}
    return {seq: RowTable(table, requests, prompts, blocks.get(seq)) for seq, table in whole.items()}


def _is_possible(table: npt.NDArray[np.int32], requests: Mapping[int, tuple[int, str]]) -> bool:
    """Tell whether all requests of a table are known, and all its positions are."""
    rows = table.reshape(-1, 3)
    used = np.unique(rows[:, 0])
    return all(int(number) in requests for number in used if number >= 0) and bool((rows[:, 1] >= 0).all())

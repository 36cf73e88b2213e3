"""The golden side of a run, read in the actual process: tensors by label and call, or row by row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import LabelError, ShardError
from aclcmp.labeling.rows import NO_TOKEN, NamedRows
from aclcmp.labeling.shard.checksum import payload_checksum
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles, shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_bytes, read_shard

_GOLDEN = "pta"


@dataclass(slots=True, eq=False)
class _Request:
    """One request of the golden run: its tokens by position, and where its rows are."""

    name: str
    tokens: dict[int, int] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Position -> number of the table, row in it."""


class GoldenShards:
    """The golden labels of all shards in a folder."""

    def __init__(self, folder: Path) -> None:
        """Index the shards. Raises ShardError, or LabelError where none has a golden label."""
        self._requests: dict[tuple[int, str], _Request] = {}
        self._by_call: dict[tuple[int, str, int], list[tuple[ShardIndex, LabelRecord]]] = defaultdict(list)
        self._by_rows: dict[str, dict[int, tuple[ShardIndex, LabelRecord]]] = defaultdict(dict)
        self._failed: dict[str, str] = {}
        """Labels that failed or of which only a summary was kept: why."""
        self._intact: set[tuple[ShardFiles, int]] = set()
        """Labels whose checksum is right: the shard, and the number of the record."""
        self._last: tuple[NamedRows, Sequence[_Request]] | None = None
        """The rows that were asked for last, which all labels of a forward share, and their requests."""
        self._repeated: set[str] = set()
        """Labels of several calls in one forward, whose rows have the same names."""
        ranks: set[int] = set()
        numbers: dict[tuple[int, int], int] = {}
        for place, index in enumerate(map(read_shard, shards_in(folder))):
            if any(record.side == _GOLDEN for record in index.records):
                ranks.add(index.header.rank)
            for record in index.records:
                if record.side == _GOLDEN:
                    self._add(index, record, numbers.setdefault((place, record.rows), len(numbers)))
            for seq, table in index.rows.items():
                if (place, seq) in numbers:
                    self._add_rows(table.numbers.reshape(-1, 3), table.requests, numbers[place, seq])
        self._ranks = len(ranks)
        self.names: frozenset[str] = frozenset({*self._by_rows, *self._failed, *(name for _, name, _ in self._by_call)})
        """Ids of all golden labels."""
        if not self.names:
            raise LabelError(f"{folder} has no golden label")

    def _add(self, index: ShardIndex, record: LabelRecord, table: int) -> None:
        if record.offset is None or record.capture != Capture.FULL.value:
            kept = f"only {record.capture} of golden's tensor was kept" if record.offset is not None else record.error
            self._failed[record.data_id] = kept or "golden's tensor lies in a file of the library"
        elif record.rows >= 0:
            if table in self._by_rows[record.data_id]:
                self._failed[record.data_id] = "golden labels it several times in one forward"
                self._repeated.add(record.data_id)
            self._by_rows[record.data_id][table] = index, record
        else:
            self._by_call[record.task, record.data_id, record.occurrence].append((index, record))

    def _add_rows(self, rows: npt.NDArray[np.int32], names: Mapping[int, tuple[int, str]], table: int) -> None:
        for row, (number, position, token) in enumerate(rows.tolist()):
            if number >= 0:
                request = self._requests.setdefault(names[number], _Request(names[number][1]))
                request.places[position].append((table, row))
                if token != NO_TOKEN:
                    request.tokens[position] = token

    @property
    def is_whole(self) -> bool:
        """Whether one rank computed golden, so that its tensors are whole; else each rank has its own part of it."""
        return self._ranks == 1

    def call(self, task: int, name: str, occurrence: int, rank: int) -> Any:
        """Return golden's torch.Tensor of one call, that of this rank where golden has several.

        Raises LabelError where there is none.
        """
        found = self._by_call.get((task, name, occurrence))
        if not found:
            raise LabelError(self._failed.get(name) or f"golden has no call {occurrence} of it in task {task}")
        here = next((each for each in found if self.is_whole or each[0].header.rank == rank), None)
        if here is None:
            raise LabelError(f"golden's tensor lies on {self._ranks} ranks, and is not on rank {rank}")
        import torch

        bits = torch.from_numpy(np.array(self._bits(*here)))
        return bits.view(getattr(torch, here[1].dtype)).reshape(here[1].shape)

    def rows(self, name: str, wanted: NamedRows, rank: int) -> Any:
        """Return golden's rows of a label, torch.Tensor of [n, ...], in the order of the named rows.

        They are those of this rank where golden has several. Raises LabelError where one of them is not there.
        """
        tables = {
            table: found
            for table, found in (self._by_rows.get(name, {}) if name not in self._repeated else {}).items()
            if self.is_whole or found[0].header.rank == rank
        }
        if not tables:
            raise LabelError(self._failed.get(name) or "golden has no rows of it")
        requests = self._pair_requests(wanted)
        chosen: dict[int, list[tuple[int, int]]] = defaultdict(list)
        flat = wanted.table.reshape(-1, 3)
        for row, (number, position, _) in enumerate(flat.tolist()):
            if number < 0:
                continue
            place = next((each for each in requests[number].places.get(position, ()) if each[0] in tables), None)
            if place is None:
                raise LabelError(f"golden has no row of request {wanted.requests[number]!r}, position {position}")
            chosen[place[0]].append((row, place[1]))
        import torch

        whole = None
        for table, places in chosen.items():
            index, record = tables[table]
            names = index.rows[record.rows].numbers
            width = record.shape[row_dimensions(record.shape, names.shape[:-1]) :]
            bits = self._bits(index, record).reshape(math.prod(names.shape[:-1]), -1)
            to, of = zip(*places, strict=True)
            part = torch.from_numpy(bits[list(of)]).view(getattr(torch, record.dtype)).reshape(len(of), *width)
            if whole is None:
                whole = part.new_zeros((len(flat), *part.shape[1:]))
            whole[list(to)] = part
        if whole is None:
            raise LabelError("all of its rows are padding")
        return whole

    def next_token(self, request: str, position: int, token: int, prompt: Sequence[int]) -> int | None:
        """Return the token that follows one of a request in the golden run; None where that is not known."""
        found = self._matching(request, dict(enumerate(prompt)) | {position: token})
        return found.tokens.get(position + 1) if found is not None else None

    def _bits(self, index: ShardIndex, record: LabelRecord) -> npt.NDArray[np.uint8]:
        """Map a label's bytes into memory. Raises ShardError where they are damaged, which the first use checks."""
        bits = read_bytes(index.path(record), record)
        place = index.files, record.seq
        if place not in self._intact:
            if payload_checksum(bits) != record.checksum:
                raise ShardError(f"the bytes of golden's {record.data_id!r} in {index.path(record)} were damaged")
            self._intact.add(place)
        return bits

    def _pair_requests(self, wanted: NamedRows) -> Sequence[_Request]:
        """Return the golden request of each request, by its tokens. Raises LabelError where one has none."""
        if self._last is not None and self._last[0] is wanted:
            return self._last[1]
        tokens: list[dict[int, int]] = [dict(enumerate(wanted.prompts.get(name, ()))) for name in wanted.requests]
        for number, position, token in wanted.table.reshape(-1, 3).tolist():
            if number >= 0 and token != NO_TOKEN:
                tokens[number][position] = token
        found = [self._matching(name, each) for name, each in zip(wanted.requests, tokens, strict=True)]
        for name, request in zip(wanted.requests, found, strict=True):
            if request is None:
                raise LabelError(f"golden has no request with the tokens of {name!r}")
        requests = [request for request in found if request is not None]
        self._last = wanted, requests
        return requests

    def _matching(self, name: str, tokens: Mapping[int, int]) -> _Request | None:
        """Return a golden request with these tokens, the one of the same name first; None where there is none."""
        agreeing = [each for each in self._requests.values() if _agree(each, name, tokens)]
        return max(agreeing, key=lambda each: (each.name == name, len(each.tokens.keys() & tokens)), default=None)


def _agree(golden: _Request, name: str, tokens: Mapping[int, int]) -> bool:
    """Tell whether a request has these tokens as far as both are known; without any its name must be the same."""
    common = golden.tokens.keys() & tokens
    return all(golden.tokens[position] == tokens[position] for position in common) and (
        bool(common) or golden.name == name
    )


def row_dimensions(shape: Sequence[int], rows: tuple[int, ...]) -> int:
    """Return how many leading dimensions of a shape carry rows, named by a table of (n) or (B, T).

    Raises LabelError where they do not.
    """
    if tuple(shape[:2]) in (rows, (1, *rows)):
        return 2
    if tuple(shape[:1]) == (math.prod(rows),):
        return 1
    raise LabelError(f"the leading dimensions of {list(shape)} do not carry its {math.prod(rows)} rows")

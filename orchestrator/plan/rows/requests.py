"""Requests of two sides: which is which, by their tokens, and up to which position they are the same text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.plan.rows.row_sets import Request

_UNKNOWN = -2
"""In place of a token: no row of the request has this position."""
_MOST_TRIED = 512
"""Golden requests that begin alike and are held against one actual request."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestTokens:
    """One request of a side: its name, and the token at each position (-1 if none was told, -2 if no row has it)."""

    name: str
    tokens: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RequestPair:
    """An actual request and the golden one of the same text."""

    golden: int
    """Number of the golden request."""
    end: int
    """Position from which on the texts differ, or the first one that neither has."""
    tokens: tuple[int, int] | None
    """The two tokens at that position where they differ."""


class SideRequests:
    """The requests of one side over all its ranks."""

    def __init__(self, tables: Iterable[tuple[int, RowTable]]) -> None:
        """Take (rank, table) of all forwards, those of a rank in order.

        A name that comes again with other tokens is another request: on other ranks, as data-parallel ones may use it,
        or later, where a script names none.
        """
        self.requests: list[RequestTokens] = []
        self._numbers: dict[tuple[int, int, int], int] = {}
        texts: list[tuple[Request, dict[int, int]]] = []
        latest: dict[tuple[int, Request], int] = {}
        of_text: dict[tuple[int, int, int], int] = {}
        for rank, table in tables:
            for number, new in table.tokens_of_requests():
                request = table.requests[number]
                before = latest.get((rank, request))
                if before is None or _contradicts(texts[before][1], new):
                    before = latest[rank, request] = len(texts)
                    texts.append((request, {}))
                texts[before][1].update(new)
                of_text[rank, id(table), number] = before
        merged = self._merge(texts)
        self._numbers = {row: merged[text] for row, text in of_text.items()}

    def number_of(self, rank: int, table: RowTable, number: int) -> int:
        """Return the number on this side of request `number` of a rank's table."""
        return self._numbers[rank, id(table), number]

    def _merge(self, texts: Sequence[tuple[Request, dict[int, int]]]) -> list[int]:
        """Make one request of all texts of one name that agree; return the request of each text."""
        by_name: dict[Request, list[int]] = defaultdict(list)
        merged = []
        for request, text in texts:
            tokens = np.full(max(text) + 1, _UNKNOWN)
            tokens[list(text)] = list(text.values())
            same = next((each for each in by_name[request] if _agree(self.requests[each].tokens, tokens)), None)
            if same is None:
                same = len(self.requests)
                by_name[request].append(same)
                self.requests.append(RequestTokens(request[1], tokens))
            else:
                self.requests[same] = RequestTokens(request[1], _union(self.requests[same].tokens, tokens))
            merged.append(same)
        return merged


def pair_requests(golden: SideRequests, actual: SideRequests) -> dict[int, RequestPair]:
    """Return by the number of each actual request the golden one that has most of its tokens from the first on.

    Of several a golden request that no other has taken goes first, then one of the same name, then the earlier one. A
    request whose very first tokens no golden one has is left out.
    """
    by_first: dict[tuple[int, int], list[int]] = defaultdict(list)
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, request in enumerate(golden.requests):
        by_name[request.name].append(number)
        for position, token in enumerate(request.tokens[:64].tolist()):
            if token >= 0:
                by_first[position, token].append(number)
    taken: set[int] = set()
    pairs: dict[int, RequestPair] = {}
    for number, request in enumerate(actual.requests):
        begin = int(np.argmax(request.tokens != _UNKNOWN))
        first = begin, int(request.tokens[begin])
        tried = by_first[first] if first[1] >= 0 and first[0] < 64 else range(len(golden.requests))
        alike = [*by_name[request.name], *list(tried)[:_MOST_TRIED]]
        best: tuple[tuple[bool, int, bool, bool, int], int, int] | None = None
        for other in dict.fromkeys(alike):
            theirs = golden.requests[other]
            told = bool((theirs.tokens >= 0).any() and (request.tokens >= 0).any())
            end = _first_difference(theirs.tokens, request.tokens)
            if end <= begin or (not told and theirs.name != request.name):
                continue
            common = min(end, len(theirs.tokens), len(request.tokens))
            score = told, common, other not in taken, theirs.name == request.name, -other
            if best is None or score > best[0]:
                best = score, other, end
        if best is not None:
            _, other, end = best
            taken.add(other)
            pairs[number] = RequestPair(other, end, _tokens_at(golden.requests[other].tokens, request.tokens, end))
    return pairs


def _first_difference(x: Sequence[int] | npt.NDArray[np.int64], y: Sequence[int] | npt.NDArray[np.int64]) -> int:
    """Return the first position where both tell a token and the tokens differ; past both ends if there is none."""
    size = min(len(x), len(y))
    one, other = np.asarray(x[:size]), np.asarray(y[:size])
    unlike = np.flatnonzero((one != other) & (one >= 0) & (other >= 0))
    return int(unlike[0]) if unlike.size else max(len(x), len(y))


def _contradicts(text: Mapping[int, int], new: Mapping[int, int]) -> bool:
    """Tell whether a position has another token than before."""
    return any(text.get(position, token) != token for position, token in new.items())


def _tokens_at(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], position: int) -> tuple[int, int] | None:
    return (int(x[position]), int(y[position])) if position < min(len(x), len(y)) else None


def _agree(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> bool:
    return _first_difference(x, y) == max(len(x), len(y))


def _union(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    longer, other = (x.copy(), y) if len(x) >= len(y) else (y.copy(), x)
    part = longer[: len(other)]
    part[:] = np.where(part >= 0, part, np.maximum(part, other))
    return longer

"""Requests of two sides: which is which, by their tokens, and up to which position they are the same text."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.row_table import RowTable

_UNKNOWN = -2
"""In place of a token: no row of the request has this position."""
_MOST_TRIED = 512
"""Golden requests that begin alike and are held against one actual request."""

_Request = tuple[int, str]
"""Task and name."""
_Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RequestTokens:
    """One request of a side: its name, and the token at each position (-1 if none was told, -2 if no row has it)."""

    name: str
    tokens: _Tokens

    @property
    def begin(self) -> int:
        """The first position that a row has: those before it were taken from a cache, or not labelled."""
        return int(np.argmax(self.tokens != _UNKNOWN))

    @property
    def told(self) -> bool:
        """Whether any token was told."""
        return bool((self.tokens >= 0).any())


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
        prompts: dict[int, int] = {}
        texts: list[tuple[_Request, dict[int, int]]] = []
        latest: dict[tuple[int, _Request], int] = {}
        first: dict[int, int] = {}
        of_text: dict[tuple[int, int, int], int] = {}
        for rank, table in tables:
            for number, new in table.tokens_of_requests():
                request = table.requests[number]
                before = latest.get((rank, request))
                if before is None or _contradicts(texts[before][1], new):
                    before = latest[rank, request] = len(texts)
                    texts.append((request, {}))
                texts[before][1].update(new)
                if table.blocks is None:
                    first[before] = min(first.get(before, min(new)), *new)
                of_text[rank, id(table), number] = before
                prompts[before] = max(prompts.get(before, 0), len(table.prompts.get(number, ())))
        merged = self._merge(texts)
        self.prompts = [0] * len(self.requests)
        """How many tokens each request's prompt has, as far as that is known, else 0."""
        computed: dict[int, int] = {}
        for text, number in enumerate(merged):
            self.prompts[number] = max(self.prompts[number], prompts[text])
            if text in first:
                computed[number] = min(computed.get(number, first[text]), first[text])
        self.computed_from = [computed.get(number, 0) for number in range(len(self.requests))]
        """The first position of each request that a row has which was not read from a cache."""
        self._numbers: dict[tuple[int, int, int], int] = {row: merged[text] for row, text in of_text.items()}

    def number_of(self, rank: int, table: RowTable, number: int) -> int:
        """Return the number on this side of request `number` of a rank's table."""
        return self._numbers[rank, id(table), number]

    def following(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the token behind that of each row, -1 where none was told; `rows` are (request, position, token)."""
        found = np.full(len(rows), -1, np.int32)
        for number in np.unique(rows[:, 0]).tolist():
            at = np.flatnonzero(rows[:, 0] == number)
            tokens, behind = self.requests[number].tokens, rows[at, 1] + 1
            told = behind < len(tokens)
            found[at[told]] = np.maximum(tokens[behind[told]], -1)
        return found

    def _merge(self, texts: Sequence[tuple[_Request, dict[int, int]]]) -> list[int]:
        """Make one request of all texts of one name that agree; return the request of each text."""
        by_name: dict[_Request, _TextsOfName] = defaultdict(lambda: _TextsOfName(self.requests))
        merged = []
        for request, text in texts:
            tokens = np.full(max(text) + 1, _UNKNOWN)
            tokens[list(text)] = list(text.values())
            of_name = by_name[request]
            number = of_name.find(tokens)
            if number is None:
                number = len(self.requests)
                self.requests.append(RequestTokens(request[1], tokens))
            else:
                of_name.remove(number)
                self.requests[number] = RequestTokens(request[1], _union(self.requests[number].tokens, tokens))
            of_name.add(number)
            merged.append(number)
        return merged


class _TextsOfName:
    """The requests of one name. Of whole texts that agree one begins the other: in their order they are neighbours."""

    def __init__(self, requests: Sequence[RequestTokens]) -> None:
        self._requests = requests
        self._whole: list[tuple[bytes, int]] = []
        self._partly: list[int] = []
        """Those of which tokens are not told: they are neighbours of none."""

    def add(self, number: int) -> None:
        tokens = self._requests[number].tokens
        if _is_whole(tokens):
            insort(self._whole, (_sortable(tokens), number))
        else:
            self._partly.append(number)

    def remove(self, number: int) -> None:
        tokens = self._requests[number].tokens
        if _is_whole(tokens):
            del self._whole[bisect_left(self._whole, (_sortable(tokens), number))]
        else:
            self._partly.remove(number)

    def find(self, tokens: _Tokens) -> int | None:
        """Return the first request that agrees with a text; None if none does."""
        near = self._neighbours(_sortable(tokens)) if _is_whole(tokens) else (number for _, number in self._whole)
        agreeing = [each for each in (*near, *self._partly) if _agree(self._requests[each].tokens, tokens)]
        return min(agreeing, default=None)

    def _neighbours(self, text: bytes) -> Iterable[int]:
        at = bisect_left(self._whole, (text,))
        longer = takewhile(lambda each: each[0].startswith(text), self._whole[at:])
        return [number for _, number in (*self._whole[max(at - 1, 0) : at], *longer)]


def pair_requests(golden: SideRequests, actual: SideRequests) -> dict[int, RequestPair]:
    """Return by the number of each actual request the golden one that has most of its tokens from the first on.

    Of several a golden request that no other has taken goes first, then one of the same name, then the earlier one. A
    request whose very first tokens no golden one has is left out.
    """
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, request in enumerate(golden.requests):
        if request.name or not _is_whole(request.tokens):  # a whole text says more than no name
            by_name[request.name].append(number)
    taken: set[int] = set()
    pairs: dict[int, RequestPair] = {}
    begins = [request.begin for request in actual.requests]
    for begin, numbers in groupby(sorted(range(len(begins)), key=lambda number: begins[number]), begins.__getitem__):
        texts = _TextsFrom(golden.requests, begin)
        for number in numbers:
            request = actual.requests[number]
            alike = [*by_name[request.name][:_MOST_TRIED], *texts.most_alike(request.tokens, taken)]
            best: tuple[tuple[bool, int, bool, bool, int], int, int] | None = None
            for other in dict.fromkeys(alike):
                theirs = golden.requests[other]
                told = theirs.told and request.told
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
    return dict(sorted(pairs.items()))


class _TextsFrom:
    """Golden texts from a position on, in order: those that have most of another's first tokens are its neighbours."""

    def __init__(self, requests: Sequence[RequestTokens], begin: int) -> None:
        self._begin = begin
        self._all = range(len(requests))
        self._partly: list[int] = []
        """Those of which later tokens are not told: they may have more in common than is seen."""
        self._numbers: dict[bytes, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            tokens = request.tokens[begin:]
            if tokens.size and tokens[0] >= 0:
                self._numbers[_sortable(tokens)].append(number)
                if not _is_whole(tokens):
                    self._partly.append(number)
        self._texts = sorted(self._numbers)
        self._taken = dict.fromkeys(self._texts, 0)
        """How many requests of a text are known to be taken, the first ones."""

    def most_alike(self, tokens: _Tokens, taken: Collection[int]) -> Sequence[int]:
        """Return the requests that may have most of these tokens."""
        tokens = tokens[self._begin :]
        untold = np.flatnonzero(tokens < 0)
        told = int(untold[0]) if untold.size else len(tokens)
        if not told:
            return self._all[:_MOST_TRIED]
        text = _sortable(tokens[:told])
        at = bisect_left(self._texts, text)
        common = max((_common_begin(text, each) for each in self._texts[max(at - 1, 0) : at + 1]), key=len, default=b"")
        first = bisect_left(self._texts, common)
        alike = takewhile(lambda each: each.startswith(common), self._texts[first : first + _MOST_TRIED])
        free = [self._free_one(each, taken) for each in alike] if common else []
        if told == len(tokens):  # they have equally many
            free = sorted(free, key=lambda number: (number in taken, number))[:1]
        return [*free, *self._partly[:_MOST_TRIED]]

    def _free_one(self, text: bytes, taken: Collection[int]) -> int:
        """Return the first request of a text that no other has taken; the first of all if there is none."""
        numbers, at = self._numbers[text], self._taken[text]
        while at < len(numbers) and numbers[at] in taken:
            at += 1
        self._taken[text] = at
        return numbers[at] if at < len(numbers) else numbers[0]


def _is_whole(tokens: _Tokens) -> bool:
    """Tell whether every token is told."""
    return bool((tokens >= 0).all())


def _sortable(tokens: _Tokens) -> bytes:
    """Return bytes, four of each token, that sort as the tokens do."""
    return tokens.astype(">u4").tobytes()


def _common_begin(x: bytes, y: bytes) -> bytes:
    """Return the tokens with which both texts begin."""
    size = min(len(x), len(y))
    unlike = np.flatnonzero(np.frombuffer(x, ">u4", size // 4) != np.frombuffer(y, ">u4", size // 4))
    return x[: 4 * int(unlike[0])] if unlike.size else x[:size]


def _first_difference(x: _Tokens, y: _Tokens) -> int:
    """Return the first position where both tell a token and the tokens differ; past both ends if there is none."""
    size = min(len(x), len(y))
    one, other = x[:size], y[:size]
    unlike = np.flatnonzero((one != other) & (one >= 0) & (other >= 0))
    return int(unlike[0]) if unlike.size else max(len(x), len(y))


def _contradicts(text: Mapping[int, int], new: Mapping[int, int]) -> bool:
    """Tell whether a position has another token than before."""
    return any(text.get(position, token) != token for position, token in new.items())


def _tokens_at(x: _Tokens, y: _Tokens, position: int) -> tuple[int, int] | None:
    return (int(x[position]), int(y[position])) if position < min(len(x), len(y)) else None


def _agree(x: _Tokens, y: _Tokens) -> bool:
    return _first_difference(x, y) == max(len(x), len(y))


def _union(x: _Tokens, y: _Tokens) -> _Tokens:
    longer, other = (x.copy(), y) if len(x) >= len(y) else (y.copy(), x)
    part = longer[: len(other)]
    np.maximum(part, other, out=part)
    return longer

"""Rows of an engine's forward passes: which token of which request each is, from the inputs of the batches alone.

A pass holds the token ids and positions of its rows and the length of each request, but no names. A request goes on in
a later pass where that pass has a row for its next position. Of several requests of one length the engine keeps the
order; where some of them have ended, it does not show which, and their rows stay without names. Only a request behind
a cached prefix that is just as long as another one that has just ended is taken for that one; its text is then told to
part from golden's.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.rows import PADDING
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.dumps.row_numbers import RowNumbers, are_of_rows

_CERTAIN = 2
"""A request decodes for certain after this many steps: those before may be rests of a prompt."""


@dataclass(slots=True, eq=False)
class _Request:
    """A request as far as the passes show it."""

    number: int
    tokens: list[int] | None
    """Its tokens from the first on; None where nothing tells which request it is."""
    length: int = 0
    steps: int = 0
    """Passes in a row with one row of it: decode steps, but for a rest of one token of a chunked prompt."""

    last: npt.NDArray[np.int32] | None = None
    """Its row among those of the last tokens of the last pass."""
    in_doubt: bool = False
    """It may have gone on as a request without a name."""


@dataclass(frozen=True, slots=True)
class PassRows:
    """Names of the rows of one pass."""

    rows: RowTable
    """Of tensors with a row for each token."""
    last: RowTable
    """Of tensors with a row for each request, such as logits: its last token."""


@dataclass(slots=True)
class RequestsOfPasses:
    """Finds the requests of one rank's passes, which are given one after another."""

    unnamed: int = 0
    """Rows so far of which nothing tells the request."""
    _has_unknown: bool = False
    """There were requests of which no pass tells the text."""
    _known: list[_Request] = field(default_factory=list)
    _open: list[_Request] = field(default_factory=list)
    """Requests that may go on, in the order in which the engine keeps them."""
    _names: dict[int, tuple[int, str]] = field(default_factory=dict)
    _prompts: dict[int, Sequence[int]] = field(default_factory=dict)

    def lose_track(self) -> None:
        """Take note of a pass that is missing or not understood: any request may have gone on, ended or begun in it."""
        self._has_unknown = True
        for request in self._open:
            request.in_doubt = True

    def name_rows(self, tokens: RowNumbers, positions: RowNumbers, lengths: RowNumbers) -> PassRows | None:
        """Return the names of a pass's rows; None where they do not follow from its inputs.

        `tokens` and `positions` have one number a row, `lengths` one a request: its tokens so far, all of the pass
        among them. Rows at the end that stand for token 0 at position 0 are padding.
        """
        starts = _starts(tokens, positions, lengths)
        if starts is None:
            if len(tokens) or len(positions) or len(lengths):
                self.lose_track()
            return None
        parts = [(int(positions[a]), tokens[a:b].tolist()) for a, b in itertools.pairwise(starts)]
        requests = self._requests_of(parts)
        table = np.zeros((len(tokens), 3), np.int32)
        table[:, 0], table[:, 1], table[:, 2] = PADDING, positions, tokens
        last = np.zeros((len(lengths), 3), np.int32)
        last[:, 0] = PADDING
        for place, (request, (begin, end)) in enumerate(zip(requests, itertools.pairwise(starts), strict=True)):
            if request.tokens is not None:
                table[begin:end, 0] = request.number
            else:
                self.unnamed += end - begin
            if request.last is not None and end - begin > 1:
                request.last[0] = PADDING  # that was a chunk of a prompt, of which the engine drops the logits
            last[place] = table[end - 1]
            request.last = last[place]
        return PassRows(*(RowTable(numbers, self._names, self._prompts) for numbers in (table, last)))

    def _requests_of(self, parts: Sequence[tuple[int, list[int]]]) -> list[_Request]:
        """Return the request of each part of a batch, (first position, tokens), and note how far it is now."""
        by_start: dict[int, list[int]] = defaultdict(list)
        for place, (start, _) in enumerate(parts):
            by_start[start].append(place)
        by_length: dict[int, list[_Request]] = defaultdict(list)
        for request in self._open:
            by_length[request.length].append(request)
        found: dict[int, _Request] = {}
        for start, places in by_start.items():
            waiting = by_length[start] if start else []
            if len(waiting) == len(places) and not any(request.in_doubt for request in waiting):
                found |= dict(zip(places, waiting, strict=True))
                continue
            prefix = None if waiting else self._prefix(start)
            for request in waiting:
                request.in_doubt = True  # some went on, and nothing tells which
            found |= {place: self._add(prefix) for place in places}
        here = [found[place] for place in range(len(parts))]
        for request, (start, tokens) in zip(here, parts, strict=True):
            request.length = start + len(tokens)
            if request.tokens is not None:
                request.tokens += tokens
            request.steps = request.steps + 1 if start and len(tokens) == 1 else 0
        decodes = all(request.steps for request in here) and any(request.steps > _CERTAIN for request in here)
        numbers = {request.number for request in here}
        absent = [request for request in self._open if request.number not in numbers]
        self._open = here if decodes else absent + here  # all requests that run take part in a step that decodes
        return here

    def _prefix(self, length: int) -> tuple[int, ...] | None:
        """Return the first tokens of a request that begins behind a cached prefix; None where several are possible."""
        if length == 0:
            return ()
        texts: set[tuple[int, ...] | None] = {None} if self._has_unknown else set()
        for request in self._known:
            if request.length >= length:
                texts.add(None if request.tokens is None else tuple(request.tokens[:length]))
            if len(texts) > 1:
                return None
        return texts.pop() if texts else None

    def _add(self, prefix: tuple[int, ...] | None) -> _Request:
        request = _Request(len(self._known), None if prefix is None else list(prefix))
        self._known.append(request)
        self._names[request.number] = 0, str(request.number)
        if prefix:
            self._prompts[request.number] = prefix
        return request


def _starts(tokens: RowNumbers, positions: RowNumbers, lengths: RowNumbers) -> list[int] | None:
    """Return the first row of each request, and the end of the last one; None where the inputs are no such batch."""
    whole = len(tokens) == len(positions) and all(len(numbers) for numbers in (tokens, positions, lengths))
    if not whole or not all(are_of_rows(numbers) for numbers in (tokens, positions, lengths)):
        return None
    used = np.flatnonzero((tokens != 0) | (positions != 0))
    rows = int(used[-1]) + 1 if used.size else 0
    starts = [0]
    for length in lengths.tolist():
        begin = starts[-1]
        if begin == rows:
            break
        end = begin + length - int(positions[begin])
        if not begin < end <= rows or not np.array_equal(positions[begin:end], np.arange(positions[begin], length)):
            return None
        starts.append(end)
    return starts if starts[-1] == rows else None

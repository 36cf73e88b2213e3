"""What was compared while the ranks ran, to be taken where the very same pairs are asked for again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats, RowSums

MOST_BYTES = 256 << 20
"""What is compared beyond is compared again at the end."""
_EACH = 4096
"""About what a pair and its statistics take, without sums by row."""


class ResultCache:
    """Statistics by pairs. A pair says where its bytes lie, and those of a label that was committed never change."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._found: dict[tuple[Pair, ...], PairStats] = {}
        self._room = most_bytes

    def __len__(self) -> int:
        return len(self._found)

    def names(self) -> set[tuple[LabelKey, int]]:
        """The labels of which something is known, each with the rank."""
        # a copy, in one step: a thread that did not end in time may still keep something
        return {(group[0].key, group[0].rank) for group in list(self._found)}

    def keep(self, pairs: Sequence[Pair], outcomes: Outcomes) -> None:
        """Keep what came of pairs, as far as there is room; what could not be read is tried again."""
        for group in _by_name(pairs):
            stats = outcomes.get((group[0].key, group[0].rank))
            if not isinstance(stats, PairStats) or group in self._found:
                continue
            rows = stats.rows
            size = _EACH * len(group) + rows.index.nbytes + rows.sum_xx.nbytes + rows.sum_dd.nbytes
            if size > self._room:
                continue
            self._room -= size
            # what came through Ray's object store would keep its place there
            own = RowSums(rows.group, rows.index.copy(), rows.sum_xx.copy(), rows.sum_dd.copy())
            self._found[group] = replace(stats, rows=own)

    def take(self, pairs: Sequence[Pair]) -> tuple[Outcomes, list[Pair]]:
        """Return what is known of pairs, and those of which nothing is."""
        found: Outcomes = {}
        left: list[Pair] = []
        for group in _by_name(pairs):
            stats = self._found.get(group)
            if stats is None:
                left += group
            else:
                found[group[0].key, group[0].rank] = stats
        return found, left


def _by_name(pairs: Sequence[Pair]) -> list[tuple[Pair, ...]]:
    """The pairs of each (label, rank); those of one follow each other."""
    return [tuple(group) for _, group in groupby(pairs, lambda pair: (pair.key, pair.rank))]

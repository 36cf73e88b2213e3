"""Results of comparisons while the ranks ran, which are reused when the same pairs are compared again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from aclcmp.orchestrator.core.choices import RowChoices
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats, RowSums

MOST_BYTES = 256 << 20
"""Results beyond this size are dropped, and their pairs are compared again at the end."""
_PAIR_BYTES = 4096
"""Approximate bytes of a pair and its statistics, without sums by row."""


class ResultCache:
    """Statistics by pairs. They stay valid, because the bytes of a committed label never change."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._stats: dict[tuple[Pair, ...], PairStats] = {}
        self._room = most_bytes

    def __len__(self) -> int:
        return len(self._stats)

    def names(self) -> set[tuple[LabelKey, int]]:
        """Return the (label, rank) of all results."""
        # a copy, in one step: a thread that did not end in time may still add a result
        return {(group[0].key, group[0].rank) for group in list(self._stats)}

    def keep(self, pairs: Sequence[Pair], outcomes: Outcomes) -> None:
        """Keep the statistics of pairs, as far as there is room. Pairs that could not be read are left out."""
        for group in _by_name(pairs):
            stats = outcomes.get((group[0].key, group[0].rank))
            if not isinstance(stats, PairStats) or group in self._stats:
                continue
            rows, choices = stats.rows, stats.choices
            size = _PAIR_BYTES * len(group) + rows.index.nbytes + rows.sum_xx.nbytes + rows.sum_dd.nbytes
            size += 0 if choices is None else choices.table.nbytes
            if size > self._room:
                continue
            self._room -= size
            # arrays from Ray's object store would keep their memory there
            own = RowSums(rows.group, rows.index.copy(), rows.sum_xx.copy(), rows.sum_dd.copy())
            own_choices = choices and RowChoices(choices.table.copy())
            self._stats[group] = replace(stats, rows=own, choices=own_choices)

    def take(self, pairs: Sequence[Pair]) -> tuple[Outcomes, list[Pair]]:
        """Return the known statistics of pairs, and the pairs without."""
        found: Outcomes = {}
        missing: list[Pair] = []
        for group in _by_name(pairs):
            stats = self._stats.get(group)
            if stats is None:
                missing += group
            else:
                found[group[0].key, group[0].rank] = stats
        return found, missing


def _by_name(pairs: Sequence[Pair]) -> list[tuple[Pair, ...]]:
    """Group the pairs by (label, rank); those of one must be consecutive."""
    return [tuple(group) for _, group in groupby(pairs, lambda pair: (pair.key, pair.rank))]

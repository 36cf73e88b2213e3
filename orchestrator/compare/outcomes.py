"""Outcomes of a comparison by (label, rank): the statistics of all its pairs, merged. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region
from aclcmp.orchestrator.core.stats import Outcomes, PairStats


class OutcomeCollector:
    """Outcomes by (label, rank).

    The pairs of a label, and the parts of a pair that was split, are merged in the order of their regions: the last bit
    of sums must not depend on which actor was first.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._left: dict[tuple[LabelKey, int], int] = {}
        for pair in pairs:
            name = (pair.key, pair.rank)
            self._left[name] = self._left.get(name, 0) + pair.region.size
        self._parts: dict[tuple[LabelKey, int], list[tuple[Region, PairStats | str]]] = {}
        self._complete: Outcomes = {}

    def add(self, batch: Sequence[Pair], results: Sequence[PairStats | str]) -> int:
        """Take the results of a batch; return how many (label, rank) are complete with them."""
        before = len(self._complete)
        for pair, result in zip(batch, results, strict=True):
            name = (pair.key, pair.rank)
            left = self._left.pop(name, 0) - pair.region.size
            if left:
                self._left[name] = left
                self._parts.setdefault(name, []).append((pair.region, result))
            elif name in self._complete:  # the remaining parts are empty
                self._complete[name] = _merge(self._complete[name], result)
            elif name in self._parts:
                parts = [*self._parts.pop(name), (pair.region, result)]
                parts.sort(key=lambda part: (part[0].start, part[0].shape))
                self._complete[name] = functools.reduce(_merge, (each for _, each in parts))
            else:
                self._complete[name] = result
        return len(self._complete) - before

    def complete(self) -> Outcomes:
        """Return the outcomes of all (label, rank) that are complete."""
        return dict(self._complete)


def _merge(one: PairStats | str, other: PairStats | str) -> PairStats | str:
    if isinstance(one, PairStats):
        return one.merge(other) if isinstance(other, PairStats) else other
    return one

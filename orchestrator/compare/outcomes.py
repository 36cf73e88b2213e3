"""What became of each (label, rank): its pairs' statistics, merged as they come. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

Outcomes = dict[tuple[LabelKey, int], PairStats | str]
"""The statistics of each (label, rank), or in words why it has none."""


class Collected:
    """Outcomes by (label, rank); its pairs, and the parts of one that was split, are merged as they come."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._left: dict[tuple[LabelKey, int], int] = {}
        for pair in pairs:
            name = (pair.key, pair.rank)
            self._left[name] = self._left.get(name, 0) + pair.region.size
        self._parts: Outcomes = {}
        self._complete: Outcomes = {}

    def add(self, batch: Sequence[Pair], results: Sequence[PairStats | str]) -> int:
        """Take the results of a batch; return how many (label, rank) are complete with them."""
        before_it = len(self._complete)
        for pair, result in zip(batch, results, strict=True):
            name = (pair.key, pair.rank)
            before = self._parts.pop(name, None) or self._complete.get(name)  # complete: what follows is empty
            if isinstance(before, PairStats) and isinstance(result, PairStats):
                result = before.merge(result)
            elif isinstance(before, str):
                result = before
            left = self._left.pop(name, 0) - pair.region.size
            if left:
                self._left[name] = left
                self._parts[name] = result
            else:
                self._complete[name] = result
        return len(self._complete) - before_it

    def finished(self) -> Outcomes:
        """Return the outcomes of those that are complete."""
        return dict(self._complete)

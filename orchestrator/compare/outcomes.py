"""What became of each (label, rank): its pairs' statistics, merged as they come. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

Outcomes = dict[tuple[LabelKey, int], PairStats | str]
"""The statistics of each (label, rank), or in words why it has none."""


class Collected:
    """Outcomes by (label, rank); its pairs, and the parts of one that was split, are merged as they come."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._left: dict[tuple[LabelKey, int], int] = defaultdict(int)
        for pair in pairs:
            self._left[pair.key, pair.rank] += pair.region.size
        self._outcomes: Outcomes = {}

    def add(self, batch: Sequence[Pair], results: Sequence[PairStats | str]) -> int:
        """Take the results of a batch; return how many (label, rank) are complete with them."""
        complete = 0
        for pair, result in zip(batch, results, strict=True):
            name = (pair.key, pair.rank)
            before = self._outcomes.get(name)
            if isinstance(before, PairStats) and isinstance(result, PairStats):
                result = before.merge(result)
            self._outcomes[name] = before if isinstance(before, str) else result
            self._left[name] -= pair.region.size
            complete += self._left[name] == 0
        return complete

    def finished(self) -> Outcomes:
        """Return the outcomes of those that are complete."""
        return {name: outcome for name, outcome in self._outcomes.items() if self._left[name] == 0}

"""Many pieces of one whole, found by what they have in common with a box."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.plan.layouts.interpretations import Piece


class Boxes:
    """Pieces by where they begin along the dimension in which they differ most.

    Finding takes O(log n) and the number of pieces found; where pieces differ in length, of those beside them too.
    """

    def __init__(self, held: Iterable[tuple[int, Piece]]) -> None:
        """Take pieces with the ranks that hold them."""
        each = list(held)
        starts = [piece.whole.start for _, piece in each]
        dims = range(len(starts[0])) if starts else range(0)
        self._dim = max(dims, key=lambda dim: len({start[dim] for start in starts}), default=-1)
        if self._dim >= 0:
            each.sort(key=lambda one: one[1].whole.start[self._dim])
        self._held = each
        self._starts = [piece.whole.start[self._dim] if self._dim >= 0 else 0 for _, piece in each]
        self._longest = max((piece.whole.shape[self._dim] for _, piece in each), default=0) if self._dim >= 0 else 0

    def touching(self, wanted: Region) -> list[tuple[int, Piece]]:
        """Return the pieces that may share something with a box, and all that do."""
        if self._dim < 0:
            return list(self._held)
        start = wanted.start[self._dim]
        first = bisect_right(self._starts, start - self._longest)
        last = bisect_left(self._starts, start + wanted.shape[self._dim])
        return self._held[first:last]

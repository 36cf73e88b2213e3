"""The cover of a box by others: which parts of it they hold, and the rest."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import TypeVar

from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.plan.layouts.interpretations import TensorBox

Holder = TypeVar("Holder")


def cover(wanted: Region, offered: Iterable[tuple[Holder, Region]]) -> tuple[list[tuple[Holder, Region]], list[Region]]:
    """Cover a box by those offered, the earlier first; return which holder gives which part, and the parts without one.

    The parts are disjoint and lie within `wanted`.
    """
    left = [wanted]
    given: list[tuple[Holder, Region]] = []
    for holder, box in offered:
        rest: list[Region] = []
        for part in left:
            shared = intersection(part, box)
            if shared is None:
                rest.append(part)
            else:
                given.append((holder, shared))
                rest += difference(part, shared)
        left = rest
        if not left:
            break
    return given, left


def intersection(one: Region, other: Region) -> Region | None:
    """Return the box that two have in common; None when that holds no element."""
    start = tuple(map(max, one.start, other.start))
    end = tuple(map(min, one.end, other.end))
    shape = tuple(e - s for s, e in zip(start, end, strict=True))
    return Region(start, shape) if all(size > 0 for size in shape) else None


def difference(box: Region, hole: Region) -> list[Region]:
    """Return disjoint boxes that make up `box` without `hole`, which lies within it."""
    parts = []
    start, end = list(box.start), list(box.end)
    for dim, (first, last) in enumerate(zip(hole.start, hole.end, strict=True)):
        for low, high in ((start[dim], first), (last, end[dim])):
            if low < high:
                lows = (*start[:dim], low, *start[dim + 1 :])
                highs = (*end[:dim], high, *end[dim + 1 :])
                parts.append(Region(lows, tuple(h - low_ for low_, h in zip(lows, highs, strict=True))))
        start[dim], end[dim] = first, last
    return parts


class BoxIndex:
    """Pieces by where they begin along the dimension in which they differ most.

    Finding takes O(log n) and the number of pieces found; where pieces differ in length, of those beside them too.
    """

    def __init__(self, pieces: Iterable[tuple[int, TensorBox]]) -> None:
        """Take pieces with the ranks that hold them."""
        each = list(pieces)
        starts = [piece.whole.start for _, piece in each]
        dims = range(len(starts[0])) if starts else range(0)
        self._dim = max(dims, key=lambda dim: len({start[dim] for start in starts}), default=-1)
        if self._dim >= 0:
            each.sort(key=lambda one: one[1].whole.start[self._dim])
        self._pieces = each
        self._starts = [piece.whole.start[self._dim] if self._dim >= 0 else 0 for _, piece in each]
        self._longest = max((piece.whole.shape[self._dim] for _, piece in each), default=0) if self._dim >= 0 else 0

    def touching(self, wanted: Region) -> list[tuple[int, TensorBox]]:
        """Return the pieces that may share something with a box, and all that do."""
        if self._dim < 0:
            return list(self._pieces)
        start = wanted.start[self._dim]
        first = bisect_right(self._starts, start - self._longest)
        last = bisect_left(self._starts, start + wanted.shape[self._dim])
        return self._pieces[first:last]

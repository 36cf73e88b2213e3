"""Boxes cut by boxes: which parts of a wanted one others hold, and what is left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from aclcmp.orchestrator.core.regions import Region

Holder = TypeVar("Holder")


def cover(wanted: Region, offered: Iterable[tuple[Holder, Region]]) -> tuple[list[tuple[Holder, Region]], list[Region]]:
    """Cover a box by those offered, the earlier the better; return who gives which part, and the parts that none has.

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

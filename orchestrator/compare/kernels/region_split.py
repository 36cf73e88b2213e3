"""Split regions into smaller, disjoint ones that cover them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from aclcmp.orchestrator.core.regions import Region


def pieces(region: Region, count: int) -> list[Region]:
    """Split a region, along its first dimension larger than 1, into up to `count` nearly equal ones, in order."""
    dim = next((dim for dim, size in enumerate(region.shape) if size > 1), None)
    if count <= 1 or dim is None:
        return [region]
    size = region.shape[dim]
    count = min(count, size)
    cuts = [size * piece // count for piece in range(count + 1)]

    def piece(begin: int, end: int) -> Region:
        start, shape = list(region.start), list(region.shape)
        start[dim], shape[dim] = start[dim] + begin, end - begin
        return Region(tuple(start), tuple(shape))

    return [piece(begin, end) for begin, end in itertools.pairwise(cuts)]


def within(region: Region, most: int, size_of: Callable[[Region], int]) -> Iterator[Region]:
    """Split a region, along further dimensions if necessary, until `size_of` of each piece is at most `most`.

    `size_of` must not grow when a region shrinks. Only single elements may remain larger.
    """
    cut = pieces(region, -(-size_of(region) // most))
    if len(cut) == 1:
        yield region
        return
    for piece in cut:
        yield from within(piece, most, size_of)

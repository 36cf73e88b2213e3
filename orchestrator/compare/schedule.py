"""Which pairs go together to a compare actor, and which are so large that they are split first. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.plan.regions import Pair, Region

BATCH_BYTES = 32 << 20
"""About this much per call of an actor: some milliseconds of work, so that progress and balance stay fine."""
BATCH_PAIRS = 128
SPLIT_BYTES = 256 << 20
"""A pair above this is compared in parts, by several actors at once."""


def pair_bytes(pair: Pair) -> int:
    """Bytes that comparing a pair reads, of both sides and all their summands together."""
    return pair.region.size * sum(DTYPES[source.dtype].itemsize for source in pair.sources)


def split(pair: Pair) -> list[Pair]:
    """Cut a large pair along its first dimension that can be cut; the parts' statistics add up to the pair's.

    Summaries cannot be cut.
    """
    parts = -(-pair_bytes(pair) // SPLIT_BYTES)
    dim = next((dim for dim, size in enumerate(pair.region.shape) if size > 1), None)
    if parts <= 1 or dim is None or not pair.is_whole:
        return [pair]
    size = pair.region.shape[dim]
    cuts = [size * part // min(parts, size) for part in range(min(parts, size) + 1)]

    def part_of(region: Region, begin: int, end: int) -> Region:
        start, shape = list(region.start), list(region.shape)
        start[dim], shape[dim] = start[dim] + begin, end - begin
        return Region(tuple(start), tuple(shape))

    return [
        replace(
            pair,
            golden_region=part_of(pair.golden_region, begin, end),
            actual_region=part_of(pair.actual_region, begin, end),
            region=part_of(pair.region, begin, end),
        )
        for begin, end in itertools.pairwise(cuts)
    ]


def batches(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Group pairs, large ones split, into calls of about equal work; order is kept."""
    grouped: list[list[Pair]] = []
    room = 0
    for pair in (part for whole in pairs for part in split(whole)):
        if room <= 0 or len(grouped[-1]) >= BATCH_PAIRS:
            grouped.append([])
            room = BATCH_BYTES
        grouped[-1].append(pair)
        room -= pair_bytes(pair)
    return grouped

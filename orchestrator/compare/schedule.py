"""Where each pair is compared, what travels there, and which pairs go together to an actor, large ones split. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.cutting import pieces, within
from aclcmp.orchestrator.compare.fetch import Read, read_bytes, reads_of
from aclcmp.orchestrator.plan.regions import Pair, Region

NodeOf = Callable[[int], str]
"""The node that holds a rank's files."""

BATCH_BYTES = 32 << 20
"""About this much per call of an actor: some milliseconds of work, so that progress and balance stay fine."""
BATCH_PAIRS = 128
SPLIT_BYTES = 256 << 20
"""A pair above this is compared in parts, by several actors at once."""
FETCH_BYTES = 16 << 20
"""Most bytes that travel for one call of an actor, which holds them while it works."""


def pair_bytes(pair: Pair) -> int:
    """Bytes that comparing a pair reads, of both sides and all their summands together."""
    return pair.region.size * sum(DTYPES[source.dtype].itemsize for source in pair.sources)


def home(pair: Pair, node_of: NodeOf) -> str:
    """Return the node that holds most of the bytes that a pair reads; the actual side's where several hold as many."""
    actual = node_of(pair.actual.rank)
    if not _away(pair, actual, node_of):
        return actual
    held: dict[str, int] = defaultdict(int)
    for read in reads_of(pair):
        held[node_of(read[0].rank)] += read_bytes(read)
    return max(held, key=lambda node: (held[node], node == actual))


def away(pairs: Sequence[Pair], node: str, node_of: NodeOf) -> dict[str, list[Read]]:
    """Return what must travel to `node` to compare `pairs` there: by the node that holds it, each read once."""
    found: dict[str, dict[Read, None]] = defaultdict(dict)
    for pair in pairs:
        for read in _away(pair, node, node_of):
            found[node_of(read[0].rank)][read] = None
    return {holder: list(reads) for holder, reads in found.items()}


def split(pair: Pair, fetched: int = 0) -> list[Pair]:
    """Cut a large pair, and one of which much travels; the parts' statistics add up to the pair's.

    `fetched` bytes of it travel: at most FETCH_BYTES for each part. Summaries cannot be cut.
    """
    if not pair.is_whole:
        return [pair]
    regions = pieces(pair.region, -(-pair_bytes(pair) // SPLIT_BYTES))
    if fetched:
        each = fetched // pair.region.size
        regions = [part for region in regions for part in within(region, FETCH_BYTES, lambda r: r.size * each)]
    if len(regions) == 1:
        return [pair]

    def part_of(region: Region, part: Region) -> Region:
        by = tuple(to - start for to, start in zip(region.start, pair.region.start, strict=True))
        return part.moved(by)

    return [
        replace(
            pair,
            golden_region=part_of(pair.golden_region, part),
            actual_region=part_of(pair.actual_region, part),
            region=part,
        )
        for part in regions
    ]


def batches(pairs: Iterable[Pair], node: str, node_of: NodeOf) -> list[list[Pair]]:
    """Group pairs that are compared on `node` into calls of about equal work, large ones split; order is kept.

    What travels for one call is at most FETCH_BYTES, unless it is one pair that cannot be cut.
    """
    grouped: list[list[Pair]] = []
    travelling: set[Read] = set()
    room = room_to_fetch = 0
    for whole in pairs:
        fetched = sum(map(read_bytes, _away(whole, node, node_of)))
        for pair in split(whole, fetched):
            reads = set(_away(pair, node, node_of)) if fetched else set()
            more = sum(map(read_bytes, reads - travelling))
            if room <= 0 or len(grouped[-1]) >= BATCH_PAIRS or more > room_to_fetch:
                grouped.append([])
                travelling.clear()
                room, room_to_fetch, more = BATCH_BYTES, FETCH_BYTES, sum(map(read_bytes, reads))
            grouped[-1].append(pair)
            travelling |= reads
            room -= pair_bytes(pair)
            room_to_fetch -= more
    return grouped


def _away(pair: Pair, node: str, node_of: NodeOf) -> list[Read]:
    """What of a pair's reads lies on other nodes; often nothing, which is told fast."""
    if all(node_of(source.rank) == node for source in pair.sources):
        return []
    return [read for read in reads_of(pair) if node_of(read[0].rank) != node]

"""Schedule of a comparison: on which node, what travels there, and which pairs or parts share a call. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.kernels.region_split import pieces, within
from aclcmp.orchestrator.compare.remote_reads import Read, read_bytes, reads_of
from aclcmp.orchestrator.core.regions import Pair, Region

MOST_PER_HOST = 16
"""Most workers of a host: beyond this its memory bandwidth is used up."""
BATCH_BYTES = 32 << 20
"""Approximate bytes per call of an actor: some milliseconds of work, for smooth progress and balance."""
BATCH_PAIRS = 128
SPLIT_BYTES = 256 << 20
"""Pairs above this size are compared in parts, by several actors at once."""
FETCH_BYTES = 16 << 20
"""Most bytes that travel for one call of an actor, which keeps them in memory while it works."""
_PAIR_COSTS = 1 << 20
"""Cost of a pair beyond its bytes, as bytes: some 0.1 ms."""


def pair_bytes(pair: Pair) -> int:
    """Return the bytes that comparing a pair reads, of both sides and all their summands together."""
    return pair.region.size * sum(DTYPES[source.dtype].itemsize for source in pair.sources)


def home(pair: Pair, places: FileLocations) -> str:
    """Return the node that holds most bytes of a pair; the actual side's node if several hold as many.

    Of nodes that share files it is the one where the rank ran.
    """
    actual = places.home(pair.actual.rank)
    if not _missing_reads(pair, actual, places):
        return actual
    bytes_held: dict[str, int] = defaultdict(int)
    for read in reads_of(pair):
        for node in {places.home(source.rank) for source in pair.sources}:
            bytes_held[node] += read_bytes(read) * places.sees(node, read[0].rank)
    return max(sorted(bytes_held), key=lambda node: (bytes_held[node], node == actual))


def spread(pairs: Iterable[Pair], places: FileLocations, cores: Mapping[str, int]) -> dict[str, list[Pair]]:
    """Return the pairs that each node compares, in their order; `cores` are those of the nodes that can compare.

    Work is spread over nodes that see the same files: a pair leaves the node where its rank ran if that node has more
    work, by at least one call, than those nodes have on average.
    """
    found: dict[str, list[Pair]] = defaultdict(list)
    busy: dict[str, float] = defaultdict(float)
    groups = {group: [node for node in sorted(group) if node in cores] for group in places.alike.values()}
    for pair in pairs:
        chosen = home(pair, places)
        group = places.alike.get(chosen)
        if group is not None and groups[group] and not _missing_reads(pair, chosen, places):
            sharing = groups[group]
            average = sum(busy[node] for node in sharing) / len(sharing)
            if chosen not in cores or busy[chosen] - average > BATCH_BYTES:
                chosen = min(sharing, key=lambda node: busy[node])
        busy[chosen] += (pair_bytes(pair) + _PAIR_COSTS) / cores.get(chosen, 1)
        found[chosen].append(pair)
    return dict(found)


def missing_reads(pairs: Sequence[Pair], node: str, places: FileLocations) -> dict[str, list[Read]]:
    """Return the reads that must travel to `node` to compare `pairs` there, each once, by the node that holds them."""
    found: dict[str, dict[Read, None]] = defaultdict(dict)
    for pair in pairs:
        for read in _missing_reads(pair, node, places):
            found[places.home(read[0].rank)][read] = None
    return {holder: list(reads) for holder, reads in found.items()}


def split(pair: Pair, fetched: int = 0) -> list[Pair]:
    """Split a pair that is large, or of which much data travels; the parts' statistics add up to the pair's.

    `fetched` is the number of its bytes that travel: at most FETCH_BYTES for each part. Summaries cannot be split.
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
        return part.translate(by)

    return [
        replace(
            pair,
            golden_region=part_of(pair.golden_region, part),
            actual_region=part_of(pair.actual_region, part),
            region=part,
        )
        for part in regions
    ]


def may_be_split(pair: Pair, places: FileLocations) -> bool:
    """Tell whether a pair may be compared in parts. That depends on the nodes, and so does the last bit of sums."""
    size = pair_bytes(pair)
    nodes = {places.home(source.rank) for source in pair.sources}
    return size > SPLIT_BYTES or (len(nodes) > 1 and size > FETCH_BYTES)


def batches(pairs: Iterable[Pair], node: str, places: FileLocations) -> list[list[Pair]]:
    """Group the pairs for `node` into calls of about equal work, in their order; large pairs are split.

    At most FETCH_BYTES travel for one call, unless it is one pair that cannot be split.
    """
    grouped: list[list[Pair]] = []
    travelling: set[Read] = set()
    room = room_to_fetch = 0
    for whole in pairs:
        fetched = sum(map(read_bytes, _missing_reads(whole, node, places)))
        for pair in split(whole, fetched):
            reads = set(_missing_reads(pair, node, places)) if fetched else set()
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


def _missing_reads(pair: Pair, node: str, places: FileLocations) -> list[Read]:
    """Return the reads of a pair whose files a node does not see. The frequent case of none is fast."""
    if all(places.sees(node, source.rank) for source in pair.sources):
        return []
    return [read for read in reads_of(pair) if not places.sees(node, read[0].rank)]

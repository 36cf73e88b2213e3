"""Checks without golden: ranks that ought to hold the same, and do not bit by bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.plan import Replicas
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region
from aclcmp.orchestrator.plan.layouts.alignment import Alignment
from aclcmp.orchestrator.plan.layouts.declared import complete_layouts, interpret_layouts
from aclcmp.orchestrator.plan.layouts.interpretations import (
    AlignmentError,
    LocalTensor,
    same_pieces,
    same_place,
)
from aclcmp.orchestrator.plan.rank_labels import RankLabel

_FEWEST_FOR_MOST = 3
"""Of two ranks that differ neither is most."""

Ranks = Mapping[int, RankLabel]


def replicas_of_sides(key: LabelKey, goldens: Ranks, actuals: Ranks, alignment: Alignment) -> Iterator[Replicas]:
    """Yield replicas that differ, on both sides, where it is known how they lie."""
    for side, by_rank, whole, groups in (
        ("golden", goldens, alignment.golden_side, alignment.replica_groups[0]),
        ("actual", actuals, alignment.actual_side, alignment.replica_groups[1]),
    ):
        own = alignment.one_run or side == "actual"
        for ranks in groups if not whole.alike else ():
            yield from _differing(key, side, {rank: by_rank[rank] for rank in ranks}, declared=True, own_ranks=own)
    if alignment.golden.replicated and alignment.actual.replicated:
        if len(alignment.golden.wholes) > 1 and alignment.one_run:
            yield from _odd_ones(key, "golden", goldens, actuals)
        if len(alignment.actual.wholes) > 1:
            yield from _odd_ones(key, "actual", actuals, goldens)


def unused_goldens(key: LabelKey, goldens: Ranks, used: set[int], alignment: Alignment) -> Iterator[Replicas]:
    """Yield golden tensors of wholes with which no actual one is compared, beside those in the same place that are.

    They may be replicas of these; if they are not, something is there that nobody compared.
    """
    for wholes in alignment.served_together:
        compared = {rank for whole in wholes if not whole.ranks.isdisjoint(used) for rank in whole.ranks}
        for ranks in same_pieces(wholes):
            known = {goldens[rank].content for rank in ranks if rank in compared}
            others = [rank for rank in ranks if rank not in compared]
            if known and any(goldens[rank].content not in known - {None} for rank in others):
                those = {rank: goldens[rank] for rank in ranks}
                yield from _differing(key, "golden", those, declared=True, own_ranks=False)


def replicas_of_one_side(key: LabelKey, side: str, by_rank: Ranks) -> Iterator[Replicas]:
    """Yield replicas that differ of a label that the other side does not have."""
    locals_ = {rank: LocalTensor(each.shape, each.record.layout) for rank, each in by_rank.items()}
    try:
        layouts = complete_layouts(locals_)
        reading = None if layouts is None else interpret_layouts(locals_, layouts)
    except AlignmentError:
        return
    if reading is None:
        yield from _odd_ones(key, side, by_rank, {})
        return
    for ranks in same_place(reading):
        yield from _differing(key, side, {rank: by_rank[rank] for rank in ranks}, declared=True)


def _odd_ones(key: LabelKey, side: str, by_rank: Ranks, others: Ranks) -> Iterator[Replicas]:
    """Yield a few ranks that differ where most are equal, without a layout: the other side has no such difference.

    Slices of equal shapes differ too, but then on both sides.
    """
    clusters = _clusters(by_rank)
    most = clusters[0] if clusters else ()
    if len(clusters) < 2 or len(by_rank) < _FEWEST_FOR_MOST or 2 * len(most) <= len(by_rank) or len(most) < 2:
        return
    if len(_clusters({rank: others[rank] for rank in by_rank if rank in others})) > 1:
        return
    yield from _differing(key, side, by_rank, declared=False)


def _differing(
    key: LabelKey, side: str, by_rank: Ranks, *, declared: bool, own_ranks: bool = True
) -> Iterator[Replicas]:
    clusters = _clusters(by_rank)
    if len(clusters) < 2:
        return
    # where each rank differs from each, the first may be the odd one: then the second is not
    references = clusters[: 2 if len(clusters[0]) == 1 and len(clusters) > 2 else 1]
    firsts = [cluster[0] for cluster in clusters]
    against = tuple(
        tuple(
            _pair(key, rank, by_rank[reference[0]], by_rank[rank])
            for rank in firsts
            if rank != reference[0] and _comparable(by_rank[reference[0]], by_rank[rank])
        )
        for reference in references
    )
    yield Replicas(key, side, declared, tuple(map(tuple, clusters)), against, own_ranks)


def _comparable(one: RankLabel, other: RankLabel) -> bool:
    """Tell whether two tensors can be compared element by element; those that cannot are not the same."""
    same_kind = DTYPES[one.dtype].kind is DTYPES[other.dtype].kind
    return same_kind and (one.shape, one.in_blocks) == (other.shape, other.in_blocks)


def _clusters(by_rank: Ranks) -> list[Sequence[int]]:
    """Return the sets of ranks with equal checksums, the largest first, then that with the lowest rank."""
    alike: dict[object, list[int]] = defaultdict(list)
    for rank in sorted(by_rank):
        content = by_rank[rank].content
        alike[(rank,) if content is None else content].append(rank)
    return sorted(alike.values(), key=lambda ranks: (-len(ranks), ranks[0]))


def _pair(key: LabelKey, rank: int, reference: RankLabel, label: RankLabel) -> Pair:
    whole = Region.whole(label.shape)
    return Pair(key, rank, reference.source, whole, label.source, whole, label.shape, whole, "replicas")

"""Both sides of one label on all ranks, and the groups of ranks that belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from aclcmp.orchestrator.plan.rank_labels import RankLabel

LabelsByRank = Mapping[int, RankLabel]
"""One side of a label on each rank that has it."""
RankSets = tuple[frozenset[int], ...]
"""Sets of ranks that hold the same."""


@dataclass(slots=True)
class LabelSides:
    """One label on all ranks, by side."""

    goldens: dict[int, RankLabel] = field(default_factory=dict)
    actuals: dict[int, RankLabel] = field(default_factory=dict)
    nameless: dict[int, RankLabel] = field(default_factory=dict)
    """Failed labels that named no valid side."""

    def add(self, rank: int, label: RankLabel) -> None:
        """Take one side on one rank; a failure is never hidden by another record."""
        side = label.record.side
        ranks = self.goldens if side == "pta" else self.actuals if side == "acl" else self.nameless
        if rank not in ranks or not ranks[rank].record.error:
            ranks[rank] = label

    def all_labels(self) -> Iterator[RankLabel]:
        """Yield the labels of all sides and ranks."""
        return chain(self.goldens.values(), self.actuals.values(), self.nameless.values())

    def on_ranks(self, ranks: set[int]) -> LabelSides:
        """Return both sides on some of the ranks."""
        goldens, actuals = (
            {rank: label for rank, label in side.items() if rank in ranks} for side in (self.goldens, self.actuals)
        )
        return LabelSides(goldens, actuals)

    @property
    def ranks(self) -> set[int]:
        """All ranks that have something of it."""
        return {*self.goldens, *self.actuals, *self.nameless}


def split_by_rank_groups(sides: LabelSides) -> list[LabelSides]:
    """Split a label of one run into the groups of ranks that its layouts name, each with tensors of its own.

    It stays whole unless each group has both sides and every rank is in a group.
    """
    if sides.nameless:
        return [sides]
    groups = _join_overlapping(_groups_in_layouts(sides))
    present = [group & sides.ranks for group in sorted(groups, key=min) if group & sides.ranks]
    have_both = all(not group.isdisjoint(side) for group in present for side in (sides.goldens, sides.actuals))
    if len(present) < 2 or not have_both or set().union(*present) != sides.ranks:
        return [sides]
    return [sides.on_ranks(group) for group in present]


def _groups_in_layouts(sides: LabelSides) -> list[set[int]]:
    """Return the groups of ranks that the layouts of a label name; none where a layout names no ranks."""
    layouts = [label.record.layout for side in (sides.actuals, sides.goldens) for label in side.values()]
    groups = {placement.ranks for layout in layouts if layout for placement in layout.placements}
    return [] if None in groups else [set(group or ()) for group in groups]


def _join_overlapping(groups: Iterable[set[int]]) -> list[set[int]]:
    """Join the groups that share ranks; those that are left share none."""
    joined: list[set[int]] = []
    for group in groups:
        overlapping = [each for each in joined if each & group]
        joined = [each for each in joined if not each & group] + [group.union(*overlapping)]
    return joined


def equal_golden_ranks(goldens: LabelsByRank) -> RankSets:
    """Return the sets of ranks whose golden tensors are the same; none where that tells nothing.

    It tells nothing where all are the same, or where each is another: a rank that has it twice may round otherwise.
    """
    alike: dict[object, list[int]] = defaultdict(list)
    for rank, label in goldens.items():
        if label.problem or label.content is None:
            return ()
        alike[label.content].append(rank)
    return tuple(map(frozenset, alike.values())) if 1 < len(alike) < len(goldens) else ()

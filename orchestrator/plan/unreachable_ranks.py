"""Ranks whose shards nobody can read: the labels of other ranks count as failed there, with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from aclcmp.labeling.layout import Layout, Partial, Replicate
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Sides
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.plan.label_sides import LabelSides

_MAY_LIE_THERE = (GapKind.MISSING_GOLDEN, GapKind.MISMATCH)


@dataclass(frozen=True, slots=True)
class LostRanks:
    """Ranks whose shards nobody can read, each with the reason in words."""

    ranks: Mapping[int, str] = field(default_factory=dict)
    """Those of the report."""
    goldens: Mapping[int, str] | None = None
    """Those of the golden run, where that is another one."""

    def __bool__(self) -> bool:
        return bool(self.ranks or self.goldens)

    def words(self, kind: GapKind | None) -> str:
        """Say on which of them may be what a rank lacks, for a gap of a kind or (None) for rows and regions."""
        own_run = self.goldens is None
        lost = self.ranks if self.goldens is None else self.goldens
        if not lost and kind is GapKind.MISMATCH:
            own_run, lost = True, self.ranks
        if not lost:
            return ""
        of_run = "" if own_run else " of the golden run"
        return f"; it may be on rank {min(lost)}{of_run}{' and others' if len(lost) > 1 else ''}: {lost[min(lost)]}"


def add_unreachable_gaps(label: LabelPlan, sides: LabelSides, lost: LostRanks) -> LabelPlan:
    """Add to a label's plan a gap on each lost rank; `sides` are those of the other ranks.

    Nobody knows whether such a rank had the label, so it never counts as compared. Where a live rank lacks something
    that a lost one may have, its gap says so; a sum whose layout does not name the ranks of its summands is not known.
    """
    if side := _sum_over_unnamed_ranks(sides, lost):
        label = _without_pairs(label, sides, lost, side, GapKind.MISMATCH, "a summand, so the sum is not known")
    elif lost.goldens and _may_be_a_part(sides):
        label = _without_pairs(label, sides, lost, "pta", GapKind.FAILED, "a part, so the whole is not known")
    return _with_gaps(label, lost, golden=bool(sides.goldens))


def plans_of_unreachable_ranks(
    known: Collection[LabelKey], heard: Iterable[tuple[LabelKey, int]], lost: LostRanks
) -> list[LabelPlan]:
    """Return plans of the labels that only lost ranks had: those that are `heard` of and not `known`."""
    ranks: dict[LabelKey, dict[int, str]] = defaultdict(dict)
    for key, rank in sorted(heard):
        if rank in lost.ranks and key not in known:
            ranks[key][rank] = lost.ranks[rank]
    return [_with_gaps(LabelPlan(key), LostRanks(own), golden=True) for key, own in ranks.items()]


def _sum_over_unnamed_ranks(sides: LabelSides, lost: LostRanks) -> str:
    """Return the side of which a summand may be on a lost rank: "pta", "acl", or ""."""
    goldens = lost.ranks if lost.goldens is None else lost.goldens
    for side, labels, absent in (("pta", sides.goldens, goldens), ("acl", sides.actuals, lost.ranks)):
        layouts = {label.record.layout for label in labels.values()}
        if absent and any(
            isinstance(each, Partial) and each.ranks is None
            for layout in layouts
            for each in (layout.placements if layout is not None else ())
        ):
            return side
    return ""


def _may_be_a_part(sides: LabelSides) -> bool:
    """Tell whether golden tensors of another run may be slices, of which lost ranks hold others.

    They are none, or known ones, where a layout names the ranks or the whole, and where several are the same.
    """
    goldens = list(sides.goldens.values())
    if all(label.record.layout is not None and _names_the_whole(label.record.layout) for label in goldens):
        return False
    contents = {label.content for label in goldens}
    return len(goldens) == 1 or len(contents) > 1 or None in contents


def _names_the_whole(layout: Layout) -> bool:
    each = (isinstance(placement, Replicate) or placement.ranks is not None for placement in layout.placements)
    return layout.whole_shape is not None or all(each)


def _without_pairs(
    label: LabelPlan, sides: LabelSides, lost: LostRanks, side: str, kind: GapKind, what: str
) -> LabelPlan:
    """Replace the pairs of a label by gaps, for a lost rank may hold what they need of a side."""
    of_golden_run = side == "pta" and lost.goldens is not None
    absent = lost.goldens if of_golden_run and lost.goldens else lost.ranks
    reason = f"rank {min(absent)}{' of the golden run' * of_golden_run} may hold {what}"
    ranks = sorted(set(sides.actuals) - set(lost.ranks))
    why = "" if kind is GapKind.MISMATCH else f": {absent[min(absent)]}"  # that of a mismatch is added to all of them
    gaps = tuple(Gap(label.key, rank, kind, reason + why) for rank in ranks)
    kept = tuple(gap for gap in label.gaps if gap.rank not in ranks)
    seen = {rank: Sides(None, sides.actuals[rank]) for rank in ranks} | label.sides
    return LabelPlan(label.key, seen, (), (*kept, *gaps))


def _with_gaps(label: LabelPlan, lost: LostRanks, *, golden: bool) -> LabelPlan:
    """Add a gap on each lost rank; `golden` tells whether a rank that is there has a golden side."""
    gaps = (Gap(label.key, rank, GapKind.FAILED, why) for rank, why in lost.ranks.items())
    plan = _plan_of_reachable_ranks(label, lost, golden=golden)
    return replace(
        plan,
        gaps=tuple(sorted((*plan.gaps, *gaps), key=lambda gap: gap.rank)),
        sides=plan.sides | dict.fromkeys(lost.ranks, Sides(None, None)),
    )


def _plan_of_reachable_ranks(label: LabelPlan, lost: LostRanks, *, golden: bool) -> LabelPlan:
    """Return the plan of the ranks that are there."""
    also = lost.words(None)
    look = label.second_look

    def gap_of(gap: Gap) -> Gap:
        words = lost.words(gap.kind) if gap.kind in _MAY_LIE_THERE else ""
        absent = bool(words) and gap.kind is GapKind.MISSING_GOLDEN and not golden
        return replace(gap, kind=GapKind.FAILED if absent else gap.kind, reason=gap.reason + words)

    def second_look() -> tuple[LabelPlan, ...]:
        return () if look is None else tuple(_with_gaps(option, lost, golden=golden) for option in look())

    return replace(
        label,
        sides={rank: sides for rank, sides in label.sides.items() if rank not in lost.ranks},
        gaps=tuple(gap_of(gap) for gap in label.gaps if gap.rank not in lost.ranks),
        uncovered={rank: words + also for rank, words in label.uncovered.items() if rank not in lost.ranks},
        unpaired={rank: words + also for rank, words in label.unpaired.items() if rank not in lost.ranks},
        questions=tuple(
            replace(
                question,
                options=tuple(_plan_of_reachable_ranks(option, lost, golden=golden) for option in question.options),
                unsettled=_plan_of_reachable_ranks(question.unsettled, lost, golden=golden),
            )
            for question in label.questions
        ),
        second_look=None if look is None else second_look,
    )

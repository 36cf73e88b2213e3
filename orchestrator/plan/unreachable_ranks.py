"""Ranks whose shards are out of reach: the labels that others have are failed there, with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain

from aclcmp.labeling.layout import Partial
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Sides
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.plan.label_sides import LabelSides

_MAY_LIE_THERE = (GapKind.MISSING_GOLDEN, GapKind.MISMATCH)


def add_unreachable_gaps(label: LabelPlan, seen: LabelSides, lost: Mapping[int, str]) -> LabelPlan:
    """Add to a label's plan a gap on each lost rank, given with the reason; `seen` is what the others hold of it.

    Whether such a rank had the label nobody knows, so it is never taken for compared. Where a live rank lacks
    something that a lost one may have, it says so; a sum of which the summands are not told by rank is not known.
    """
    if _sums_unnamed_ranks(seen):
        label = _without_sums(label, lost)
    return _with_gaps(label, lost, golden=bool(seen.goldens))


def plans_of_unreachable_ranks(
    known: Collection[LabelKey], heard: Iterable[tuple[LabelKey, int]], lost: Mapping[int, str]
) -> list[LabelPlan]:
    """Plans of labels that lost ranks alone had, as far as one has heard of them: none is among the `known`."""
    ranks: dict[LabelKey, dict[int, str]] = defaultdict(dict)
    for key, rank in sorted(heard):
        if rank in lost and key not in known:
            ranks[key][rank] = lost[rank]
    return [_with_gaps(LabelPlan(key), own, golden=True) for key, own in ranks.items()]


def _sums_unnamed_ranks(seen: LabelSides) -> bool:
    layouts = {held.record.layout for held in chain(seen.goldens.values(), seen.actuals.values())}
    return any(
        isinstance(each, Partial) and each.ranks is None
        for layout in layouts
        for each in (layout.placements if layout is not None else ())
    )


def _without_sums(label: LabelPlan, lost: Mapping[int, str]) -> LabelPlan:
    """A sum over the ranks that are left is not the sum."""
    reason = f"rank {min(lost)} may hold a summand, so the sum is not known"
    ranks = sorted(rank for rank, sides in label.sides.items() if sides.actual is not None and rank not in lost)
    gaps = tuple(Gap(label.key, rank, GapKind.MISMATCH, reason) for rank in ranks)
    kept = tuple(gap for gap in label.gaps if gap.rank not in ranks)
    return LabelPlan(label.key, label.sides, (), (*kept, *gaps))


def _with_gaps(label: LabelPlan, lost: Mapping[int, str], *, golden: bool) -> LabelPlan:
    """`golden`: whether any rank that is there has a golden side."""
    gaps = (Gap(label.key, rank, GapKind.FAILED, f"out of reach: {why}") for rank, why in lost.items())
    told = _plan_of_reachable_ranks(label, lost, golden=golden)
    return replace(
        told,
        gaps=tuple(sorted((*told.gaps, *gaps), key=lambda gap: gap.rank)),
        sides=told.sides | dict.fromkeys(lost, Sides(None, None)),
    )


def _plan_of_reachable_ranks(label: LabelPlan, lost: Mapping[int, str], *, golden: bool) -> LabelPlan:
    """The plan of the ranks that are there."""
    why = next(iter(lost.values()))
    also = f"; it may be on rank {min(lost)}{' and others' if len(lost) > 1 else ''}: {why}"
    look = label.second_look

    def gap_of(gap: Gap) -> Gap:
        if gap.kind not in _MAY_LIE_THERE:
            return gap
        absent = gap.kind is GapKind.MISSING_GOLDEN and not golden
        return replace(gap, kind=GapKind.FAILED if absent else gap.kind, reason=gap.reason + also)

    def second_look() -> tuple[LabelPlan, ...]:
        return () if look is None else tuple(_with_gaps(option, lost, golden=golden) for option in look())

    return replace(
        label,
        sides={rank: sides for rank, sides in label.sides.items() if rank not in lost},
        gaps=tuple(gap_of(gap) for gap in label.gaps if gap.rank not in lost),
        uncovered={rank: words + also for rank, words in label.uncovered.items() if rank not in lost},
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

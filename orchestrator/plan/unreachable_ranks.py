"""Ranks whose shards are out of reach: the labels of other ranks count as failed there, with the reason."""

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


def add_unreachable_gaps(label: LabelPlan, sides: LabelSides, lost: Mapping[int, str]) -> LabelPlan:
    """Add to a label's plan a gap on each lost rank, given with the reason; `sides` are those of the other ranks.

    Nobody knows whether such a rank had the label, so it never counts as compared. Where a live rank lacks something
    that a lost one may have, its gap says so; a sum whose layout does not name the ranks of its summands is not known.
    """
    if _sums_unnamed_ranks(sides):
        label = _without_sums(label, lost)
    return _with_gaps(label, lost, golden=bool(sides.goldens))


def plans_of_unreachable_ranks(
    known: Collection[LabelKey], heard: Iterable[tuple[LabelKey, int]], lost: Mapping[int, str]
) -> list[LabelPlan]:
    """Return plans of the labels that only lost ranks had: those that are `heard` of and not `known`."""
    ranks: dict[LabelKey, dict[int, str]] = defaultdict(dict)
    for key, rank in sorted(heard):
        if rank in lost and key not in known:
            ranks[key][rank] = lost[rank]
    return [_with_gaps(LabelPlan(key), own, golden=True) for key, own in ranks.items()]


def _sums_unnamed_ranks(sides: LabelSides) -> bool:
    layouts = {label.record.layout for label in chain(sides.goldens.values(), sides.actuals.values())}
    return any(
        isinstance(each, Partial) and each.ranks is None
        for layout in layouts
        for each in (layout.placements if layout is not None else ())
    )


def _without_sums(label: LabelPlan, lost: Mapping[int, str]) -> LabelPlan:
    """Replace the pairs of a label by gaps: a sum over the ranks that are left is not the sum."""
    reason = f"rank {min(lost)} may hold a summand, so the sum is not known"
    ranks = sorted(rank for rank, sides in label.sides.items() if sides.actual is not None and rank not in lost)
    gaps = tuple(Gap(label.key, rank, GapKind.MISMATCH, reason) for rank in ranks)
    kept = tuple(gap for gap in label.gaps if gap.rank not in ranks)
    return LabelPlan(label.key, label.sides, (), (*kept, *gaps))


def _with_gaps(label: LabelPlan, lost: Mapping[int, str], *, golden: bool) -> LabelPlan:
    """Add a gap on each lost rank; `golden` tells whether a rank that is there has a golden side."""
    gaps = (Gap(label.key, rank, GapKind.FAILED, f"out of reach: {why}") for rank, why in lost.items())
    plan = _plan_of_reachable_ranks(label, lost, golden=golden)
    return replace(
        plan,
        gaps=tuple(sorted((*plan.gaps, *gaps), key=lambda gap: gap.rank)),
        sides=plan.sides | dict.fromkeys(lost, Sides(None, None)),
    )


def _plan_of_reachable_ranks(label: LabelPlan, lost: Mapping[int, str], *, golden: bool) -> LabelPlan:
    """Return the plan of the ranks that are there."""
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
        unpaired={rank: words + also for rank, words in label.unpaired.items() if rank not in lost},
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

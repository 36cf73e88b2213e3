"""Outputs beside the first one of a module whose counterpart on the other side returns a single tensor.

Decoder layers of engines return (hidden, residual), where the original's layer returns their sum. Whether it is their
sum the values tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Source
from aclcmp.orchestrator.plan.label_sides import LabelsByRank, LabelSides
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED
from aclcmp.orchestrator.plan.rank_labels import RankLabel

_FURTHER = re.compile(r"(.+)\.([1-9]\d{0,3})", re.DOTALL)
"""An output's label: that of the module and the output's number; the first output has the module's own."""
_MOST_NAMED = 3


def find_further_outputs(labels: Mapping[LabelKey, LabelSides]) -> dict[LabelKey, list[LabelKey]]:
    """Return the labels whose module returns one tensor on one side -> those of its further outputs on the other.

    They are no labels of submodules: these are recorded before the first output, and may have the number 0. Of golden
    only those count that can be a summand: others (attention weights) ought to be there on the actual side.
    """
    found: dict[LabelKey, list[LabelKey]] = {}
    for key, sides in labels.items():
        if bool(sides.goldens) == bool(sides.actuals) or sides.nameless:
            continue
        first = _first_output(key, labels)
        if first is not None and _belong_together(labels[first], sides, int(key.label.rpartition(".")[2])):
            found.setdefault(first, []).append(key)
    return found


def _first_output(key: LabelKey, labels: Mapping[LabelKey, LabelSides]) -> LabelKey | None:
    """Return the label of the module of which a label may be a further output, if both sides have that."""
    if (parts := _FURTHER.fullmatch(key.label)) is None or key._replace(label=f"{parts[1]}.0") in labels:
        return None
    first = key._replace(label=parts[1])
    return first if first in labels and labels[first].goldens and labels[first].actuals else None


def _belong_together(first: LabelSides, further: LabelSides, number: int) -> bool:
    """Tell whether each rank recorded a label just after the first output, as its module's output `number` is."""
    ones, others = _same_side(first, further)
    return all(
        rank in ones
        and ones[rank].record.call_site == other.record.call_site
        and 0 < other.record.seq - ones[rank].record.seq <= number
        and ones[rank].record.rows == other.record.rows == -1
        and (not further.goldens or _can_be_added(ones[rank], other))
        for rank, other in others.items()
    )


def _same_side(first: LabelSides, further: LabelSides) -> tuple[LabelsByRank, LabelsByRank]:
    """Return both labels on the side that has further outputs."""
    return (first.goldens, further.goldens) if further.goldens else (first.actuals, further.actuals)


def try_sum(plan: LabelPlan, first: LabelSides, further: LabelSides) -> LabelPlan:
    """Return a plan that also tries the sum of a module's first two outputs where the first alone does not agree."""
    ones, others = _same_side(first, further)
    if not all(rank in others and _can_be_added(label, others[rank]) for rank, label in ones.items()):
        return plan
    summands = {rank: label.source for rank, label in others.items()}
    if not plan.pairs or plan.questions or any(pair.more_golden or pair.more_actual for pair in plan.pairs):
        return plan
    look = plan.second_look

    def second_look() -> tuple[LabelPlan, ...]:
        of_golden = bool(further.goldens)
        return (_add(replace(plan, second_look=None), summands, of_golden), *(look() if look is not None else ()))

    return replace(plan, second_look=second_look)


def _can_be_added(one: RankLabel, other: RankLabel) -> bool:
    if one.problem or other.problem or one.in_blocks or other.in_blocks:
        return False
    return one.source.is_whole and other.source.is_whole and (one.dtype, one.shape) == (other.dtype, other.shape)


def _add(plan: LabelPlan, summands: Mapping[int, Source], of_golden: bool) -> LabelPlan:
    """Return the plan with a summand added to the golden or the actual tensor of each pair."""

    def with_summand(pair: Pair) -> Pair:
        one = pair.golden if of_golden else pair.actual
        more = (replace(summands[one.rank], shape=one.shape),)
        layout = f"{pair.layout.replace(INFERRED, '').replace(PROVED, '')}, sum of two outputs{PROVED}"
        if of_golden:
            return replace(pair, more_golden=more, layout=layout)
        return replace(pair, more_actual=more, layout=layout)

    return replace(plan, pairs=tuple(map(with_summand, plan.pairs)))


def note_on_further_outputs(labels: list[LabelKey]) -> str:
    """Say what becomes of further outputs."""
    names = list(dict.fromkeys(key.label for key in labels))
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return (
        f"modules return one tensor on one side and several on the other: {', '.join(names[:_MOST_NAMED])}{more} are "
        "compared only where the sum with the first output is what the other side returns"
    )

"""Outputs beside the first one of a module whose original returns a single tensor.

Decoder layers of engines return (hidden, residual), where the original's layer returns their sum. Whether it is their
sum the values tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Source
from aclcmp.orchestrator.plan.label_sides import LabelSides
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED

_FURTHER = re.compile(r"(.+)\.([1-9]\d{0,3})", re.DOTALL)
"""An output's label: that of the module and the output's number; the first output has the module's own."""
_MOST_NAMED = 3


def find_further_outputs(labels: Mapping[LabelKey, LabelSides]) -> dict[LabelKey, list[LabelKey]]:
    """Return the labels whose golden module returns one tensor -> those of the further outputs of the actual one.

    They are no labels of submodules: these are recorded before the first output, and may have the number 0.
    """
    found: dict[LabelKey, list[LabelKey]] = {}
    for key, sides in labels.items():
        if sides.goldens or sides.nameless or (parts := _FURTHER.fullmatch(key.label)) is None:
            continue
        module, number = key._replace(label=parts[1]), int(parts[2])
        first = labels.get(module)
        if first is None or not first.goldens or key._replace(label=f"{parts[1]}.0") in labels:
            continue
        if all(_belong_together(first, sides, rank, number) for rank in sides.actuals):
            found.setdefault(module, []).append(key)
    return found


def _belong_together(first: LabelSides, further: LabelSides, rank: int, number: int) -> bool:
    """Tell whether a label was recorded on a rank just after the first output, as its module's output `number` is."""
    if rank not in first.actuals:
        return False
    one, other = first.actuals[rank].record, further.actuals[rank].record
    return one.call_site == other.call_site and 0 < other.seq - one.seq <= number and one.rows == other.rows == -1


def try_sum(plan: LabelPlan, first: LabelSides, further: LabelSides) -> LabelPlan:
    """Return a plan that also tries the sum of a module's first two outputs where the first alone does not agree."""
    summands: dict[int, Source] = {}
    for rank, label in first.actuals.items():
        other = further.actuals.get(rank)
        if other is None or label.problem or other.problem or not _can_be_added(label.source, other.source):
            return plan
        summands[rank] = other.source
    if (
        not plan.pairs
        or plan.questions
        or any(label.in_blocks for label in first.actuals.values())
        or any(pair.more_actual or not pair.actual.is_whole for pair in plan.pairs)
    ):
        return plan
    others = plan.second_look

    def second_look() -> tuple[LabelPlan, ...]:
        options = others() if others is not None else ()
        return (_add(replace(plan, second_look=None), summands), *options)

    return replace(plan, second_look=second_look)


def _can_be_added(one: Source, other: Source) -> bool:
    return (one.dtype, one.shape, one.capture) == (other.dtype, other.shape, other.capture)


def _add(plan: LabelPlan, summands: Mapping[int, Source]) -> LabelPlan:
    """Return the plan with a summand added to the actual tensor of each rank."""

    def with_summand(pair: Pair) -> Pair:
        summand = replace(summands[pair.actual.rank], shape=pair.actual.shape)
        layout = pair.layout.replace(INFERRED, "").replace(PROVED, "")
        return replace(pair, more_actual=(summand,), layout=f"{layout}, sum of two outputs{PROVED}")

    return replace(plan, pairs=tuple(map(with_summand, plan.pairs)))


def note_on_further_outputs(labels: list[LabelKey]) -> str:
    """Say what becomes of further outputs."""
    names = list(dict.fromkeys(key.label for key in labels))
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return (
        f"golden's modules return one tensor: {', '.join(names[:_MOST_NAMED])}{more} of the actual side are compared "
        "only where the sum with the first output is what golden returns"
    )

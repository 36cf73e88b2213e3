"""Labels that are wrong in every layer though what is computed behind them is right: one name for two tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Status

_FEWEST_LAYERS = 2
_BEHIND = 0.5
"""Share of the labels in later layers that must agree: an error of the model itself would be in them."""


def notes_on_other_tensors(labels: Sequence[LabelVerdict]) -> Iterator[str]:
    """Say of each kind of module whether its name seems to mean two tensors; `labels` are in golden order."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for number, label in enumerate(labels):
        if label.level.layer:
            kinds[kind_in_layers(label.key.label, label.level.layer)].append(number)
    wrong = {
        kind: numbers
        for kind, numbers in kinds.items()
        if all(labels[number].status is Status.DIVERGED for number in numbers)
        and len({labels[number].level.layer for number in numbers}) >= _FEWEST_LAYERS
    }
    of_wrong = {number for numbers in wrong.values() for number in numbers}
    others: dict[int, list[int]] = defaultdict(list)
    """By task."""
    for number, label in enumerate(labels) if wrong else ():
        if number not in of_wrong:
            others[label.key.task].append(number)
    for kind, numbers in wrong.items():
        first = labels[numbers[0]]
        after = (labels[number] for number in others[first.key.task] if number > numbers[0])
        behind = [label for label in after if label.level.layer != first.level.layer]
        agree = sum(label.status in (Status.MATCH, Status.DRIFT) for label in behind)
        if behind and agree > _BEHIND * len(behind):
            layers = len({labels[number].level.layer for number in numbers})
            yield (
                f"{kind}: its values agree in none of {layers} layers, while most of what comes behind it agrees: is "
                "it one name for two tensors? Then pair it by --map, or give it another data id"
            )

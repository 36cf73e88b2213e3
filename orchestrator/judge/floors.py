"""Noise floors: how far two right computations of a label lie apart, measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from aclcmp.orchestrator.core.metrics import TOGETHER, all_metrics
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import PairStats


class FloorSource(str, Enum):
    """Where a floor was measured, the most telling first."""

    REFERENCE = "reference"
    """Golden against a third side of higher precision (AWS Neuron's three-way comparison)."""
    PERTURBED = "perturbed"
    """Golden against golden on an input that is perturbed in its last bit (TTrace, arXiv 2506.09280)."""
    REPEAT = "repeat"
    """Golden against golden again, or against its replicas on other ranks."""
    PROFILE = "profile"
    """The error of the same kind of label in earlier runs that were right (TAO, arXiv 2510.16028)."""


FIGURES = ("rel_l2", "worst_row", "row_p50")
"""What a floor knows, by the names of the metrics."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The noise of one label: relative L2 error of the whole tensor, of its worst row and of its median row."""

    source: FloorSource
    rel_l2: float
    worst_row: float
    row_p50: float = 0.0


def floors_of(
    found: Iterable[tuple[FloorSource, Mapping[tuple[LabelKey, int], PairStats | str]]],
) -> dict[LabelKey, tuple[Floor, ...]]:
    """Return the floors of every label: of each source the largest over ranks; what could not be read counts not."""
    largest: dict[LabelKey, dict[FloorSource, Floor]] = defaultdict(dict)
    for source, outcomes in found:
        told = ((key, stats) for (key, _), stats in outcomes.items() if isinstance(stats, PairStats))
        named = [(key, stats) for key, stats in told if stats.n_finite]
        for start in range(0, len(named), TOGETHER):
            some = named[start : start + TOGETHER]
            for (key, _), metrics in zip(some, all_metrics([stats for _, stats in some]), strict=True):
                before = largest[key].get(source, Floor(source, 0.0, 0.0))
                errors = {name: max(getattr(before, name), getattr(metrics, name)) for name in FIGURES}
                largest[key][source] = Floor(source, **errors)
    order = list(FloorSource)
    return {key: tuple(sorted(each.values(), key=lambda f: order.index(f.source))) for key, each in largest.items()}

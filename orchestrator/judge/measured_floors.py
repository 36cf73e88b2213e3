"""Noise floors: how far two right computations of a label lie apart, measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from aclcmp.orchestrator.core.floors import FIGURES, Floor, FloorSource
from aclcmp.orchestrator.core.metrics import TOGETHER, all_metrics
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Outcomes, PairStats


def floors_of(
    found: Iterable[tuple[FloorSource, Outcomes]],
) -> dict[LabelKey, tuple[Floor, ...]]:
    """Return the floors of every label: of each source the largest over ranks; what could not be read is left out."""
    largest: dict[LabelKey, dict[FloorSource, Floor]] = defaultdict(dict)
    for source, outcomes in found:
        readable = ((key, stats) for (key, _), stats in outcomes.items() if isinstance(stats, PairStats))
        finite = [(key, stats) for key, stats in readable if stats.n_finite]
        for start in range(0, len(finite), TOGETHER):
            some = finite[start : start + TOGETHER]
            for (key, _), metrics in zip(some, all_metrics([stats for _, stats in some]), strict=True):
                before = largest[key].get(source, Floor(source, 0.0, 0.0))
                errors = {name: max(getattr(before, name), getattr(metrics, name)) for name in FIGURES}
                largest[key][source] = Floor(source, **errors)
    order = list(FloorSource)
    return {key: tuple(sorted(each.values(), key=lambda f: order.index(f.source))) for key, each in largest.items()}

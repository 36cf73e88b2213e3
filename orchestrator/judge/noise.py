"""The error of the right labels just before a label: second looks and hints ignore errors within it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Status
from aclcmp.orchestrator.judge.pair_status import median_row_error

_LATELY = 8
"""Right labels before a label that count."""
_FAR = 64
"""Labels within which they must lie."""


def noise_of(labels: Sequence[LabelVerdict], of: Iterable[LabelKey]) -> Mapping[LabelKey, Mapping[int, float]]:
    """Return by label and rank the median error of the last right labels before it; ranks without any are left out.

    `labels` are in golden order. Exact types, tensors that are equal bit by bit and summaries tell nothing.
    """
    wanted = set(of)
    return {label.key: _before(labels, place) for place, label in enumerate(labels) if label.key in wanted}


def _before(labels: Sequence[LabelVerdict], place: int) -> dict[int, float]:
    here = labels[place]
    ranks = {verdict.rank for verdict in here.ranks}
    errors: dict[int, list[float]] = defaultdict(list)
    for label in reversed(labels[max(place - _FAR, 0) : place]):
        if label.key.task != here.key.task:
            continue
        for verdict in label.ranks:
            stats, metrics = verdict.stats, verdict.metrics
            right = verdict.status in (Status.MATCH, Status.DRIFT) and verdict.rank in ranks
            if right and stats is not None and metrics is not None and stats.basis is Basis.VALUES:
                error = median_row_error(stats, metrics)
                if 0.0 < error < 1.0 and len(errors[verdict.rank]) < _LATELY:
                    errors[verdict.rank].append(error)
        if all(len(errors[rank]) == _LATELY for rank in ranks):
            break
    return {rank: median(each) for rank, each in errors.items() if each}

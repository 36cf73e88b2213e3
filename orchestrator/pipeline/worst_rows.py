"""The rows of a label that are off the most on one rank, and the norms beside which a report measures them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aclcmp.orchestrator.case.label_rows import LabelRows
from aclcmp.orchestrator.core.metrics import Metrics, metrics_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.judge.residual_stream import ResidualStreams

_BLOCK = 256
"""Rows that are read at a time to find those that are not finite."""


@dataclass(frozen=True, slots=True)
class WorstRows:
    """Rows of a label, the worst first."""

    rows: list[int]
    sizes: list[float]
    """The norm beside which the error of each is measured."""


def find_worst_rows(label: LabelRows, rank: int, stats: PairStats, metrics: Metrics, count: int) -> WorstRows:
    """Find the worst rows of a rank; those whose values are not finite on one side alone come first."""
    sums = stats.rows
    norms, differences = np.sqrt(sums.sum_xx), np.sqrt(sums.sum_dd)
    median = math.sqrt(np.median(norms[norms > 0] ** 2)) if (norms > 0).any() else 0.0
    sizes = np.maximum(norms, median)
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.argsort(-np.where(differences > 0, differences / sizes, 0.0), kind="stable").tolist()
    first = np.flatnonzero(sums.index == metrics.worst_row_index).tolist()
    if first and metrics.worst_row > 0:
        sizes[first] = differences[first] / metrics.worst_row
    found = dict.fromkeys(_unlike_finite_rows(label, rank), 1.0) if stats.n_finite < stats.n else {}
    for place in [*first, *(place for place in order if place not in first)]:
        begin = int(sums.index[place]) * sums.group
        for row in range(begin // label.each, (begin + sums.group - 1) // label.each + 1):
            if len(found) < count and row < label.count:
                found.setdefault(row, float(sizes[place]))
    return WorstRows(list(found)[:count], list(found.values())[:count])


def metrics_with_memory(
    plan: Plan, key: LabelKey, rank: int, stats: PairStats, compare: Callable[[Sequence[Pair]], Outcomes]
) -> Metrics:
    """Return the metrics of a label with its rows beside the largest norms that their tokens had in layers before."""

    def is_layer(label: LabelPlan) -> bool:
        level = plan.levels[label.key]
        same = (label.key.task, label.key.occurrence) == (key.task, key.occurrence)
        return same and level.granularity == "layer" and not level.low and label.key != key

    keys = [each.key for each in plan.labels]
    layers = [each for each in plan.labels[: keys.index(key)] if is_layer(each)]
    outcomes = compare([pair for each in layers for pair in each.pairs if pair.rank == rank])
    streams = ResidualStreams()
    for layer in layers:
        found = outcomes.get((layer.key, rank))
        if isinstance(found, PairStats):
            streams.of(layer.key, plan.levels[layer.key], rank, found, metrics_of(found))
    return streams.of(key, plan.levels[key], rank, stats, metrics_of(stats))


def _unlike_finite_rows(label: LabelRows, rank: int) -> Iterator[int]:
    """Yield the rows in which values of one side alone are not finite, as a rank has them."""
    columns = label.columns(rank)
    for first in range(0, label.count, _BLOCK):
        rows = range(first, min(first + _BLOCK, label.count))
        golden, actual = (label.read(side, rows, columns, rank) for side in ("golden", "actual"))
        if golden is not None and actual is not None:
            unlike = np.isfinite(golden.values) != np.isfinite(actual.values)
            yield from (first + np.flatnonzero(unlike.any(axis=1))).tolist()

"""Plans of what moves the margin between two tokens: gradients of golden's beside the labels of both sides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aclcmp.labeling.shard.margin_table import MarginTable
from aclcmp.labeling.shard.record import REFERENCE, LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.margins import MarginPlan, PointPlan
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.plan.label_planner import Planner
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES, LayoutRules
from aclcmp.orchestrator.plan.planner import plan_labels
from aclcmp.orchestrator.plan.rank_labels import labels_by_rank

_Names = Mapping[str, Sequence[str]]
"""Label -> names of its copies, one for each gradient beside which it is put."""


def plan_margins(
    indices: Sequence[ShardIndex], world_size: int, layouts: LayoutRules = NO_RULES
) -> tuple[MarginPlan, ...]:
    """Pair the gradients of a run's margins with the labels of both sides, in the rows of their request.

    The reference, of several samples the first, stands for golden where it has all of these labels: it has less noise.
    """
    if not any(index.margins for index in indices):
        return ()
    corrected, _ = layouts.apply([_with_one_sample(index) for index in indices], "")
    with without_collection():
        return tuple(
            _plan(f"{number}-{place}", index, table, corrected, world_size)
            for number, index in enumerate(corrected)
            for place, table in enumerate(index.margins)
        )


def _with_one_sample(index: ShardIndex) -> ShardIndex:
    """Leave out all samples of the reference but the first: each has the same rows again."""
    goldens = Counter((record.task, record.data_id) for record in index.records if record.side == "pta")
    records = (
        record
        for record in index.records
        if record.side != REFERENCE
        or record.occurrence < goldens.get((record.task, record.data_id), record.occurrence + 1)
    )
    return replace(index, records=tuple(records))


def _plan(
    margin: str, index: ShardIndex, table: MarginTable, indices: Sequence[ShardIndex], world_size: int
) -> MarginPlan:
    names: dict[str, list[str]] = defaultdict(list)
    gradients: list[LabelRecord] = []
    for place, point in enumerate(table.points):
        for label in point.labels:
            names[label].append(f"{margin} {place} {label}")
            gradients.append(replace(point.gradient, side="pta", data_id=names[label][-1], occurrence=0))
    beside = [each for one in indices if (each := _rows_of(one, table.margin.request)).records]
    gradient = replace(index, records=tuple(gradients))
    told = {record.data_id for each in beside for record in each.records if record.side == REFERENCE}
    sides = [
        _plan_side(gradient, [_with_copies(each, side, names) for each in beside], world_size, side)
        for side in (REFERENCE if told >= names.keys() else "pta", "acl")
    ]
    points = []
    for place, point in enumerate(table.points):
        keys = [f"{margin} {place} {label}" for label in point.labels]
        golden, actual = (tuple(side[key] for key in keys if key in side) for side in sides)
        size = int(np.prod(point.gradient.shape))
        points.append(
            PointPlan(point.name, size, *(each if len(each) == len(keys) else () for each in (golden, actual)))
        )
    return MarginPlan(table.margin, tuple(points))


def _plan_side(gradient: ShardIndex, beside: Iterable[ShardIndex], world_size: int, side: str) -> dict[str, LabelPlan]:
    """Plan gradients beside one side's labels; the keys tell which side it is."""
    ranks = [*labels_by_rank([gradient]), *labels_by_rank(beside)]
    plans, _, _ = plan_labels(ranks, Planner(world_size, world_size, one_run=True))
    return {
        plan.key.label: replace(
            plan,
            pairs=tuple(replace(pair, key=pair.key._replace(label=f"{side} {pair.key.label}")) for pair in plan.pairs),
        )
        for plan in plans
        if plan.pairs
    }


def _rows_of(index: ShardIndex, request: str) -> ShardIndex:
    """Return the labels of a shard that have rows of a request; the other rows count as padding."""
    rows = {}
    for number, table in index.rows.items():
        of_request = [place for place, (_, name) in table.requests.items() if name == request]
        numbers = table.numbers.copy()
        numbers[..., 0] = np.where(np.isin(numbers[..., 0], of_request), numbers[..., 0], -1)
        if (numbers[..., 0] >= 0).any():
            rows[number] = replace(table, numbers=numbers)
    return replace(index, rows=rows, records=tuple(record for record in index.records if record.rows in rows))


def _with_copies(index: ShardIndex, side: str, names: _Names) -> ShardIndex:
    """Return one side's labels as actual ones, each under all of its names."""
    return replace(index, records=tuple(_copies(index.records, side, names)))


def _copies(records: Iterable[LabelRecord], side: str, names: _Names) -> Iterator[LabelRecord]:
    for record in records:
        if record.side == side:
            for name in names.get(record.data_id, ()):
                yield replace(record, side="acl", data_id=name)

"""The labels of each side, as candidates for an id map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from aclcmp.labeling.shard.dumped_tensor import NotDumped
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.idmap.similarity import CandidateLabel
from aclcmp.orchestrator.plan.rank_labels import RankLabel, merge_processes
from aclcmp.orchestrator.plan.two_runs import keep_side, shape_and_dtype, task_numbers


def candidate_labels(indices: Sequence[ShardIndex], side: str) -> list[CandidateLabel]:
    """The labels of a side's first task on the rank that has most, in the order of their recording."""
    sides = keep_side(indices, side)
    tasks = task_numbers(sides)
    most = max(sides, key=lambda index: len(index.records), default=None)
    first: dict[str, CandidateLabel] = {}
    for record in most.records if most is not None else ():
        if record.task == tasks[0] and not record.error:
            shape, dtype = shape_and_dtype(record, most)
            first.setdefault(record.data_id, CandidateLabel(record.data_id, shape, dtype, record.seq))
    return list(first.values())


def labels_by_rank(indices: Sequence[ShardIndex], side: str) -> dict[str, dict[int, RankLabel]]:
    """Return what each rank holds of the labels of a side's first task, by id: the first of each id.

    Without labels that failed and files that were not found.
    """
    sides = keep_side(indices, side)
    first = task_numbers(sides)[:1]
    of_rank: dict[int, list[ShardIndex]] = defaultdict(list)
    for index in sides:
        records = tuple(record for record in index.records if record.task in first)
        of_rank[index.header.rank].append(replace(index, records=records))
    found: dict[str, dict[int, RankLabel]] = defaultdict(dict)
    for rank, parts in sorted(of_rank.items()):
        for held in merge_processes(parts):
            if held.record.occurrence == 0 and not held.record.error and not isinstance(held.dump, NotDumped):
                found[held.record.data_id].setdefault(rank, held)
    return dict(found)

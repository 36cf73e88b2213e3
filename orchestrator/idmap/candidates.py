"""Labels of each side, as candidates for an id map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.idmap.similarity import CandidateLabel
from aclcmp.orchestrator.plan.rank_labels import RankLabel, merge_processes
from aclcmp.orchestrator.plan.two_runs import keep_side, shape_and_dtype, task_numbers


def candidate_labels(indices: Sequence[ShardIndex], side: str) -> list[CandidateLabel]:
    """Return the labels of a side's first task, from the shard with the most labels, in the order of recording."""
    sides = keep_side(indices, side)
    tasks = task_numbers(sides)
    largest = max(sides, key=lambda index: len(index.records), default=None)
    first: dict[str, CandidateLabel] = {}
    for record in largest.records if largest is not None else ():
        if record.task == tasks[0] and not record.error:
            shape, dtype = shape_and_dtype(record, largest)
            first.setdefault(record.data_id, CandidateLabel(record.data_id, shape, dtype, record.seq))
    return list(first.values())


def labels_by_rank(indices: Sequence[ShardIndex], side: str) -> dict[str, dict[int, RankLabel]]:
    """Return the labels of a side's first task by id and rank: of each id the first occurrence.

    Failed labels and labels whose files were not found are left out.
    """
    sides = keep_side(indices, side)
    first = task_numbers(sides)[:1]
    indices_by_rank: dict[int, list[ShardIndex]] = defaultdict(list)
    for index in sides:
        records = tuple(record for record in index.records if record.task in first)
        indices_by_rank[index.header.rank].append(replace(index, records=records))
    found: dict[str, dict[int, RankLabel]] = defaultdict(dict)
    for rank, processes in sorted(indices_by_rank.items()):
        for label in merge_processes(processes):
            if label.record.occurrence == 0 and not label.problem:
                found[label.record.data_id].setdefault(rank, label)
    return dict(found)

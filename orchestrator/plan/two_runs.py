"""Two runs as one: each gives a side, and their tasks and ids are made to agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import count

from aclcmp.labeling.shard.record import REFERENCE, LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.text import note_on_unused_rules
from aclcmp.orchestrator.plan.id_rules import IdMap, RankRule, TaskRule, quote_id


def keep_side(indices: Sequence[ShardIndex], side: str) -> list[ShardIndex]:
    """Keep the labels of one side of a run, or of its only side, as `side`; drop all others, also references."""
    kept = side_that_counts(indices, side)

    def to_side(record: LabelRecord) -> LabelRecord | None:
        # most runs have it right, and a copy of a record takes several us
        return record if record.side == side == kept else replace(record, side=side) if record.side == kept else None

    return map_records(indices, to_side)


def side_that_counts(indices: Sequence[ShardIndex], side: str) -> str:
    """Return the side, or the only one that a run labelled."""
    found = {record.side for index in indices for record in index.records} - {"", REFERENCE}
    return side if side in found or len(found) != 1 else next(iter(found))


def align_tasks(
    goldens: Sequence[ShardIndex], actuals: Sequence[ShardIndex], rules: Sequence[TaskRule] = ()
) -> tuple[list[ShardIndex], list[ShardIndex], list[str]]:
    """Give golden tasks the numbers of the actual ones, and drop what rules drop; also return notes on the rules."""
    theirs, ours = task_numbers(goldens), task_numbers(actuals)
    dropped = {rule.actual for rule in rules if rule.golden is None}
    kept = map_records(actuals, lambda record: None if record.task in dropped else record) if dropped else actuals
    unused = [rule.line for rule in rules if rule.golden not in (None, *theirs) or rule.actual not in (None, *ours)]
    aligned = _renumber(goldens, _pair_tasks(theirs, ours, rules))
    return aligned, list(kept), note_on_unused_rules(unused, "the map")


def as_golden(goldens: Sequence[ShardIndex], actuals: Sequence[ShardIndex], ids: IdMap | None) -> list[ShardIndex]:
    """Return the golden run's labels, also its references, in the tasks and by the names that its golden ones get."""
    if ids is not None and ids.ranks:
        sides = (side_that_counts(goldens, "pta"), REFERENCE)
        goldens = map_records(goldens, lambda record: record if record.side in sides else None)
        goldens, _ = name_by_rank(goldens, ids, "golden")
    theirs, ours = (
        sorted({record.task for index in run for record in index.records if record.side == side})
        for run, side in ((goldens, side_that_counts(goldens, "pta")), (actuals, side_that_counts(actuals, "acl")))
    )
    return _renumber(goldens, _pair_tasks(theirs, ours, () if ids is None else ids.tasks))


def _pair_tasks(goldens: Sequence[int], actuals: Sequence[int], rules: Sequence[TaskRule]) -> dict[int, int]:
    """Return golden tasks -> their numbers: by rules, then by order; without those that rules drop.

    One without a counterpart keeps its number where no actual task has it; the others get the next free ones.
    """
    ruled = {rule.golden: rule.actual for rule in rules if rule.golden is not None}
    taken = {rule.actual for rule in rules}
    free = ([task for task in goldens if task not in ruled], [task for task in actuals if task not in taken])
    pairs = dict(zip(*free, strict=False))
    pairs |= {task: actual for task, actual in ruled.items() if actual is not None and actual in actuals}
    dropped = {task for task, actual in ruled.items() if actual is None}
    alone = [task for task in goldens if task not in pairs and task not in dropped]
    keep = {task: task for task in alone if task not in actuals}
    behind = count(max([*actuals, *keep, -1]) + 1)
    return {**pairs, **keep, **{task: next(behind) for task in alone if task not in keep}}


def _renumber(indices: Sequence[ShardIndex], tasks: Mapping[int, int]) -> list[ShardIndex]:
    """Give each label's task its new number; leave out labels of other tasks."""
    if all(task == number for task, number in tasks.items()) and tasks.keys() >= {*task_numbers(indices)}:
        return list(indices)

    def change(record: LabelRecord) -> LabelRecord | None:
        task = tasks.get(record.task)
        return record if task == record.task else None if task is None else replace(record, task=task)

    return map_records(indices, change)


def map_ids(
    goldens: Sequence[ShardIndex], actuals: Sequence[ShardIndex], ids: IdMap
) -> tuple[list[ShardIndex], list[ShardIndex], tuple[str, ...]]:
    """Give actual labels their golden ids, and leave out what the rules drop; also return notes on that.

    The inputs of an actual label get their golden ids too. Raises UsageError where two actual labels get one golden id.
    """
    goldens, unused_golden = name_by_rank(goldens, ids, "golden")
    actuals, unused_actual = name_by_rank(actuals, ids, "actual")
    ids.check(_ids(actuals))
    notes = [
        f"the map drops {count:,} of {len(names):,} {side} labels"
        for side, names, count in (
            ("golden", _ids(goldens), sum(not ids.keeps_golden(name) for name in _ids(goldens))),
            ("actual", _ids(actuals), sum(ids.golden_name_of(name) is None for name in _ids(actuals))),
        )
        if count
    ]
    unused = ids.find_unused_rules(_ids(goldens), _ids(actuals))
    lines = [*unused_golden, *unused_actual, *(rule.line for rule in unused)]
    notes += note_on_unused_rules(sorted(lines), "the map")

    name_of = cache(ids.golden_name_of)

    def map_names(record: LabelRecord) -> LabelRecord | None:
        name = name_of(record.data_id)
        inputs = tuple([golden for each in record.inputs if (golden := name_of(each)) is not None])
        return None if name is None else replace(record, data_id=name, inputs=inputs)

    kept = map_records(goldens, lambda record: record if ids.keeps_golden(record.data_id) else None)
    return kept, map_records(actuals, map_names), tuple(notes)


def name_by_rank(indices: Sequence[ShardIndex], ids: IdMap, side: str) -> tuple[Sequence[ShardIndex], list[int]]:
    """Give labels of ranks that count for themselves the names that all ranks have; also return lines without labels.

    Raises UsageError where labels of two names get one, on whatever ranks: then one of them has the wrong number.
    """
    lines = {rule.line for rule in ids.ranks if rule.side == side}
    if not lines:
        return indices, []
    taken: dict[str, tuple[str, int, RankRule | None]] = {}
    named = []
    for index in indices:
        rank = index.header.rank
        name_of = cache(partial(ids.name_on_rank, rules=ids.of_rank(side, rank)))
        for data_id in dict.fromkeys(record.data_id for record in index.records):
            name, rule = name_of(data_id)
            lines -= {rule.line} if rule else set()
            other, its_rank, its_rule = taken.setdefault(name or "", (data_id, rank, rule))
            if name is not None and other != data_id and (clash := rule or its_rule):
                one, another = (f"{quote_id(each)} of rank {at}" for each, at in ((other, its_rank), (data_id, rank)))
                raise ids.refuse_same_name(clash, one, another, name)
        records = tuple(
            replace(record, data_id=name, inputs=tuple(new for each in record.inputs if (new := name_of(each)[0])))
            for record in index.records
            if (name := name_of(record.data_id)[0]) is not None
        )
        named.append(replace(index, records=records))
    return named, sorted(lines)


def shape_and_dtype(record: LabelRecord, index: ShardIndex | None) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype of a label's tensor, those of the dumped file where it names one."""
    dump = index.dumped.get(record.seq) if index is not None else None
    return (getattr(dump, "shape", record.shape), getattr(dump, "dtype", record.dtype))


def map_records(indices: Sequence[ShardIndex], change: Callable[[LabelRecord], LabelRecord | None]) -> list[ShardIndex]:
    """Change every label; a change to None leaves it out."""
    return [
        replace(index, records=tuple(new for record in index.records if (new := change(record)) is not None))
        for index in indices
    ]


def task_numbers(indices: Sequence[ShardIndex]) -> list[int]:
    """Return the numbers of a run's tasks, sorted."""
    return sorted({record.task for index in indices for record in index.records})


def _ids(indices: Sequence[ShardIndex]) -> list[str]:
    return list(dict.fromkeys(record.data_id for index in indices for record in index.records))

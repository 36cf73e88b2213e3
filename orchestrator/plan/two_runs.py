"""Two runs as one: each gives a side, their tasks and ids are made to agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from aclcmp.labeling.shard.dumped import NotDumped
from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.labeling.shard.record import REFERENCE, LabelRecord
from aclcmp.orchestrator.idmap.similarity import Seen
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.rank_labels import Held, merged_processes

_MOST_NAMED = 3


def one_side(indices: Sequence[ShardIndex], side: str) -> list[ShardIndex]:
    """Keep the labels of one side of a run, or of its only side, as `side`. References are none."""
    found = {record.side for index in indices for record in index.records} - {"", REFERENCE}
    kept = side if side in found or len(found) != 1 else next(iter(found))
    return _changed(indices, lambda record: replace(record, side=side) if record.side == kept else None)


def same_tasks(goldens: Sequence[ShardIndex], actuals: Sequence[ShardIndex]) -> list[ShardIndex]:
    """Give the golden tasks the numbers of the actual ones by their order; what has no counterpart comes behind all."""
    tasks = dict(zip(_tasks(goldens), _tasks(actuals), strict=False))
    behind = max([*tasks.values(), -1]) + 1
    return _changed(goldens, lambda record: replace(record, task=tasks.get(record.task, behind + record.task)))


def mapped(
    goldens: Sequence[ShardIndex], actuals: Sequence[ShardIndex], ids: IdMap
) -> tuple[list[ShardIndex], list[ShardIndex], tuple[str, ...]]:
    """Give actual labels their golden ids, leave out what the rules drop; also what people should know of that.

    The inputs of an actual label get their golden ids too. Raises UsageError where two actual labels get one golden id.
    """
    ids.check(_ids(actuals))
    notes = [
        f"the map drops {count:,} of {len(names):,} {side} labels"
        for side, names, count in (
            ("golden", _ids(goldens), sum(not ids.keeps_golden(name) for name in _ids(goldens))),
            ("actual", _ids(actuals), sum(ids.golden_name_of(name) is None for name in _ids(actuals))),
        )
        if count
    ]
    unused = ids.unused(_ids(goldens), _ids(actuals))
    if unused:
        lines = ", ".join(f"line {rule.line}" for rule in unused[:_MOST_NAMED])
        more = f" and {len(unused) - _MOST_NAMED:,} more" if len(unused) > _MOST_NAMED else ""
        notes.append(f"no label follows these rules of the map: {lines}{more}")

    name_of = cache(ids.golden_name_of)

    def named(record: LabelRecord) -> LabelRecord | None:
        name = name_of(record.data_id)
        inputs = tuple([known for each in record.inputs if (known := name_of(each)) is not None])
        return None if name is None else replace(record, data_id=name, inputs=inputs)

    kept = _changed(goldens, lambda record: record if ids.keeps_golden(record.data_id) else None)
    return kept, _changed(actuals, named), tuple(notes)


def seen(indices: Sequence[ShardIndex], side: str) -> list[Seen]:
    """The labels of a side's first task on the rank that has most, in the order of their recording."""
    sides = one_side(indices, side)
    tasks = _tasks(sides)
    most = max(sides, key=lambda index: len(index.records), default=None)
    first: dict[str, Seen] = {}
    for record in most.records if most is not None else ():
        if record.task == tasks[0] and not record.error:
            shape, dtype = _facts(record, most)
            first.setdefault(record.data_id, Seen(record.data_id, shape, dtype, record.seq))
    return list(first.values())


def held_by(indices: Sequence[ShardIndex], side: str) -> dict[str, dict[int, Held]]:
    """Return what each rank holds of the labels of a side's first task, by id: the first of each id.

    Without labels that failed and files that were not found.
    """
    sides = one_side(indices, side)
    first = _tasks(sides)[:1]
    of_rank: dict[int, list[ShardIndex]] = defaultdict(list)
    for index in sides:
        records = tuple(record for record in index.records if record.task in first)
        of_rank[index.header.rank].append(replace(index, records=records))
    found: dict[str, dict[int, Held]] = defaultdict(dict)
    for rank, parts in sorted(of_rank.items()):
        for held in merged_processes(parts):
            if held.record.occurrence == 0 and not held.record.error and not isinstance(held.dump, NotDumped):
                found[held.record.data_id].setdefault(rank, held)
    return dict(found)


def _facts(record: LabelRecord, index: ShardIndex | None) -> tuple[tuple[int, ...], str]:
    dump = index.dumped.get(record.seq) if index is not None else None
    return (getattr(dump, "shape", record.shape), getattr(dump, "dtype", record.dtype))


def _changed(indices: Sequence[ShardIndex], change: Callable[[LabelRecord], LabelRecord | None]) -> list[ShardIndex]:
    """Change every label; None leaves it out."""
    return [
        replace(index, records=tuple(new for record in index.records if (new := change(record)) is not None))
        for index in indices
    ]


def _tasks(indices: Sequence[ShardIndex]) -> list[int]:
    return sorted({record.task for index in indices for record in index.records})


def _ids(indices: Sequence[ShardIndex]) -> list[str]:
    return list(dict.fromkeys(record.data_id for index in indices for record in index.records))

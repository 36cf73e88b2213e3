"""From the ranks' indices to a plan."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
from aclcmp.labeling.shard.record import REFERENCE
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.levels import Level, level_of, with_parents
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.text import of_ranks
from aclcmp.orchestrator.plan.further_outputs import find_further_outputs, note_on_further_outputs, try_sum
from aclcmp.orchestrator.plan.golden_order import golden_order
from aclcmp.orchestrator.plan.id_rules import IdMap, JoinRule
from aclcmp.orchestrator.plan.label_planner import Planner
from aclcmp.orchestrator.plan.label_sides import LabelSides
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES, LayoutRules
from aclcmp.orchestrator.plan.rank_labels import Keys, RankLabel, chains_beside_golden, golden_chain, labels_by_rank
from aclcmp.orchestrator.plan.rows.row_planner import RowPlanner, gather_rows
from aclcmp.orchestrator.plan.two_runs import align_tasks, keep_side, map_ids
from aclcmp.orchestrator.plan.unreachable_ranks import LostRanks, add_unreachable_gaps, plans_of_unreachable_ranks

_MOST_WARNINGS = 3
_NOBODY: Mapping[int, str] = {}


def plan_run(
    indices: Iterable[ShardIndex],
    world_size: int,
    layouts: LayoutRules = NO_RULES,
    lost: Mapping[int, str] = _NOBODY,
    heard: Iterable[tuple[LabelKey, int]] = (),
    joins: Sequence[JoinRule] = (),
) -> Plan:
    """Pair the two sides of every label on every rank that saw it. Linear in the number of labels.

    `lost` are ranks whose shards nobody can read, each with the reason: every label fails there, also each (label,
    rank) of `heard`, which were compared while they ran. `joins` join labels. References have a plan of their own,
    `noise_plans.plan_reference`; no other plan contains them.
    """
    corrected, notes = layouts.apply(list(indices), "")
    (corrected,) = layouts.without_tellers(corrected)
    with without_collection():
        return _with_notes(_plan([corrected], world_size, LostRanks(lost), heard, joins), notes)


def plan_two(
    golden: Iterable[ShardIndex],
    actual: Iterable[ShardIndex],
    world_size: int,
    ids: IdMap | None = None,
    layouts: LayoutRules = NO_RULES,
    *,
    joins: Sequence[JoinRule] = (),
    lost_goldens: Mapping[int, str] = _NOBODY,
    lost: Mapping[int, str] = _NOBODY,
) -> Plan:
    """Pair the golden labels of one run with the actual ones of another, whose `world_size` it is.

    Of the golden run the side "pta" counts, of the other "acl"; a run that labelled one side only is that side,
    whatever it called it. Tasks pair by their order, labels by `ids`. Ranks of the two runs need not correspond.
    `layouts` go by golden ids; `joins` join labels beside those of `ids`. `lost_goldens` are ranks of the golden run
    whose shards nobody can read, each with the reason; `lost` are those of the other. Raises UsageError where `ids`
    gives two actual labels one golden id.
    """
    goldens, actuals = keep_side(list(golden), "pta"), keep_side(list(actual), "acl")
    notes: list[str] = []
    if ids is not None:
        goldens, actuals, of_map = map_ids(goldens, actuals, ids)
        notes += of_map
    goldens, actuals, of_tasks = align_tasks(goldens, actuals, () if ids is None else ids.tasks)
    goldens, of_golden = layouts.apply(goldens, "pta")
    actuals, of_actual = layouts.apply(actuals, "acl")
    goldens, actuals = layouts.without_tellers(goldens, actuals)
    with without_collection():
        plan = _plan(
            [goldens, actuals],
            world_size,
            LostRanks(lost, lost_goldens),
            joins=(*joins, *(() if ids is None else ids.joins)),
        )
    return _with_notes(plan, [*notes, *of_tasks, *of_golden, *of_actual])


def _with_notes(plan: Plan, notes: Sequence[str]) -> Plan:
    return replace(plan, notes=(*notes, *plan.notes)) if notes else plan


def plan_labels(
    ranks: Iterable[tuple[int, Sequence[RankLabel]]], planner: Planner
) -> tuple[tuple[LabelPlan, ...], dict[LabelKey, LabelSides], list[str]]:
    """Plan the labels of ranks, in golden order; also return both sides of each label, and notes.

    A rank may come twice, with its labels in each of two runs. Of a label with rows, the sides are its first records.
    """
    sides: dict[LabelKey, LabelSides] = {}
    chains: list[list[tuple[LabelKey, float]]] = []
    without: list[list[tuple[LabelKey, float]]] = []
    by_rank = [(rank, list(labels)) for rank, labels in ranks]
    rows, notes = gather_rows(by_rank)
    for rank, labels in by_rank:
        for label in labels:
            found = sides.get(label.key)
            if found is None:
                found = sides[label.key] = LabelSides()
            known = {"pta": found.goldens, "acl": found.actuals}.get(label.record.side, {})
            if label.rows is None or rank not in known:
                found.add(rank, label)
        has_golden = any(label.record.side == "pta" for label in labels)
        (chains if has_golden else without).append(golden_chain(labels))
    chains += chains_beside_golden(without, chains)
    planner.learn_golden_sets(sides.values())
    by_rows = RowPlanner(rows, planner)
    further = find_further_outputs(sides)
    beside = {key: None for several in further.values() for key in several}

    def plan(key: LabelKey) -> LabelPlan:
        if key in rows:
            return by_rows.plan(key, rows[key])
        found = planner.plan(key, sides[key])
        return try_sum(found, sides[key], sides[further[key][0]]) if key in further else found

    plans = [plan(key) for key in golden_order(chains) if key not in beside]
    notes += [*by_rows.notes(), *([note_on_further_outputs([*beside])] if beside else [])]
    return tuple(plans), sides, notes


def _plan(
    runs: Sequence[Sequence[ShardIndex]],
    world_size: int,
    lost: LostRanks,
    heard: Iterable[tuple[LabelKey, int]] = (),
    joins: Sequence[JoinRule] = (),
) -> Plan:
    """Plan one run, or a golden and an actual one, of which `joins` may join labels."""
    names: Keys = {}
    one_run = len(runs) == 1
    planner = Planner(world_size if one_run else _world_size(runs[0]), world_size, one_run=one_run)
    by_run = [list(_labels_to_compare(run, names)) for run in runs]
    joined = None
    if joins:
        if one_run:
            by_run = [_of_side(by_run[0], is_golden=True), _of_side(by_run[0], is_golden=False)]
        from aclcmp.orchestrator.plan.joined_labels import JoinedLabels  # here and not above: most plans join nothing

        joined = JoinedLabels(by_run[0], by_run[1], joins)
    labels, sides, notes = plan_labels(itertools.chain(*by_run), planner)
    if joined is not None:
        labels = tuple(map(joined.finish, labels))
        notes += joined.notes
    if lost:
        labels = tuple([add_unreachable_gaps(label, sides[label.key], lost) for label in labels])
        labels = tuple(
            sorted([*labels, *plans_of_unreachable_ranks(sides, heard, lost)], key=lambda label: label.key.task)
        )
    keys = [label.key for label in labels]
    labelled = {index.header.rank for index in runs[-1] if any(each.side != REFERENCE for each in index.records)}
    indices = sorted((index for run in runs for index in run), key=lambda index: index.header.rank)
    return Plan(
        labels=labels,
        levels=with_parents({key: _level(key, sides.get(key), one_run=one_run) for key in keys}, keys),
        silent_ranks=tuple(rank for rank in range(world_size) if rank not in labelled and rank not in lost.ranks),
        unreadable=sum(index.damaged for index in indices) + len(lost.ranks) + len(lost.goldens or ()),
        notes=(
            *_notes_on_torn_shards(runs),
            *_notes_on_parallel_processes(indices),
            *(note for index in indices for note in index.notes),
            *notes,
            *_warnings([label for _, of_rank in itertools.chain(*by_run) for label in of_rank]),
        ),
    )


def _labels_to_compare(run: Sequence[ShardIndex], names: Keys) -> Iterator[tuple[int, list[RankLabel]]]:
    """Yield each rank's labels of both sides."""
    for rank, labels in labels_by_rank(run, names):
        yield rank, [label for label in labels if label.record.side != REFERENCE]


def _of_side(ranks: Iterable[tuple[int, list[RankLabel]]], *, is_golden: bool) -> list[tuple[int, list[RankLabel]]]:
    return [(rank, [each for each in labels if (each.record.side == "pta") == is_golden]) for rank, labels in ranks]


def _world_size(run: Sequence[ShardIndex]) -> int:
    return max((max(index.header.world_size, index.header.rank + 1) for index in run), default=0)


def _level(key: LabelKey, sides: LabelSides | None, *, one_run: bool) -> Level:
    """Return the level of a label by the first records that tell it; other tools' dumps, at absolute paths, do not."""
    records = [label.record for label in sides.all_labels()] if sides is not None else []
    paths = (record.tensor_path for record in records)
    path = next((path for path in paths if path and (one_run or not path.startswith("/"))), "")
    return level_of(key.label, path, next((record.level for record in records if record.level), ""))


def _notes_on_torn_shards(runs: Sequence[Sequence[ShardIndex]]) -> list[str]:
    """Say which ranks of each run did not close their shards, one sentence for each run."""
    notes = []
    for run, which in zip(runs, ("",) if len(runs) == 1 else (" of the golden run", " of the actual run"), strict=True):
        if ranks := {index.header.rank for index in run if index.torn}:
            what = "its shard" if len(ranks) == 1 else "their shards"
            notes.append(f"{of_ranks(ranks)}{which} did not close {what} in order: labels are read from the journal")
    return notes


def _notes_on_parallel_processes(indices: Sequence[ShardIndex]) -> list[str]:
    """Say as which ranks several processes recorded the same labels at the same time: their occurrences mix."""
    by_rank: dict[tuple[str, int], list[ShardIndex]] = defaultdict(list)
    for index in indices:
        by_rank[index.header.run_id, index.header.rank].append(index)
    notes = []
    for (_, rank), several in by_rank.items():
        spans = [span for index in several if len(several) > 1 and (span := _span(index))]
        counts = (
            sum(begin <= moment <= end and bool(names & others) for begin, end, names in spans)
            for moment, _, others in spans
        )
        most = max(counts, default=0)
        if most > 1:
            notes.append(
                f"{most} processes recorded as rank {rank} at the same time, the same labels: they count as "
                "occurrences, which may pair wrongly. Set RANK in each, or start torch.distributed before the first "
                "label"
            )
    return notes


def _span(index: ShardIndex) -> tuple[float, float, set[tuple[int, str, str]]] | None:
    """Return the first and last moment of a process's records, and their names; None where it recorded nothing."""
    records = [record for record in index.records if record.side != REFERENCE]
    names = {(record.task, record.data_id, record.side) for record in records}
    return (index.header.started, max(record.time for record in records), names) if records else None


def _warnings(labels: Sequence[RankLabel]) -> list[str]:
    """Say what was odd in dumped files, and of how many tensors only summaries were kept."""
    kept = Counter([label.record.capture for label in labels])
    dumps = [label.dump for label in labels if isinstance(label.dump, DumpedTensor)]
    warnings = Counter([warning for dump in dumps for warning in dump.warnings])
    notes = [warning + (f" ({count:,} times)" if count > 1 else "") for warning, count in warnings.most_common()]
    if len(notes) > _MOST_WARNINGS:
        notes = [*notes[:_MOST_WARNINGS], f"{len(notes) - _MOST_WARNINGS:,} more warnings about dumped files"]
    for capture, what in (("fingerprint", "fingerprints"), ("stats", "statistics")):
        if kept[capture]:
            notes.append(f"of {kept[capture]:,} of {kept.total():,} tensors only {what} were kept")
    return notes

"""Plans for noise floors: two right computations of the same labels are compared, and their difference is noise.

A floor that is too high hides faults, so only tensors that surely belong together are paired: layouts that shapes alone
suggest, and questions that they leave open, give no pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from aclcmp.labeling.shard.record import REFERENCE
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.plan.label_planner import Planner
from aclcmp.orchestrator.plan.label_sides import LabelSides
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES, LayoutRules
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED
from aclcmp.orchestrator.plan.planner import plan_labels
from aclcmp.orchestrator.plan.rank_labels import RankLabel, labels_by_rank


def plan_reference(
    indices: Iterable[ShardIndex], world_size: int, layouts: LayoutRules = NO_RULES, *, sample: int = 0
) -> Plan | None:
    """Pair the golden labels of a run with their references; None where it has none.

    In its pairs the reference is "golden" and golden is "actual": `pair.rank` is the rank whose golden label it is, and
    `pair.key` names the label as in the plan of the run. Layouts, partial sums and replicas count as they do there,
    golden ones as `layouts` has them; where golden and reference of a rank have one shape, they have one layout.

    A reference that was labelled several times as often as golden is several samples; `sample` is which one counts.

    A plan of floors has no gaps, replicas, questions or second looks. Left out is a label whose layout is ambiguous, or
    inferred from the shapes alone, and a rank without a reference of its own, unless a layout or equal bits say that
    another rank's is the same. `notes` tell how many labels have a reference but no pair, and why the first has none.
    """
    corrected, _ = layouts.apply(list(indices), "pta")
    if not any(record.side == REFERENCE for index in corrected for record in index.records):
        return None
    ranks = [(rank, list(_of_sample(labels, sample))) for rank, labels in labels_by_rank(corrected)]
    wanted = {label.key for _, labels in ranks for label in labels if label.record.side == REFERENCE}
    if not wanted:
        return None
    return _plan([(rank, _pair_with_references(labels, wanted)) for rank, labels in ranks], world_size, "reference")


def _of_sample(labels: Sequence[RankLabel], sample: int) -> Iterator[RankLabel]:
    """Yield a rank's golden labels, and their references in one sample, as if it were the only one."""
    goldens = Counter(label.key[:2] for label in labels if label.record.side == "pta")
    for label in labels:
        key, each = label.key, goldens[label.key[:2]]
        if label.record.side == REFERENCE and each:
            if key.occurrence // each == sample:
                yield replace(label, key=LabelKey(*key[:2], key.occurrence % each))
        elif label.record.side != REFERENCE or sample == 0:
            yield label


def plan_repeat(
    indices: Iterable[ShardIndex],
    other_indices: Iterable[ShardIndex],
    world_size: int,
    layouts: LayoutRules = NO_RULES,
) -> Plan:
    """Pair the golden labels of a run with those of another run of the same script, on as many ranks.

    In its pairs the other run's label is "golden" and this run's is "actual": `pair.rank` and `pair.key` are those of
    this run, `pair.golden.rank` is a rank of the other. Tasks pair by their order, labels by their ids, ranks by their
    numbers; labels of one run only are left out. What is not certain is left out too, as `plan_reference` says: there
    are no gaps, replicas, questions or second looks.
    """
    own, others = (_goldens(layouts.apply(list(run), "pta")[0]) for run in (indices, other_indices))
    tasks = dict(zip(_tasks(others), _tasks(own), strict=False))
    moved = [
        (rank, [_in_task(label, tasks[label.key.task]) for label in labels if label.key.task in tasks])
        for rank, labels in others
    ]
    both = _keys(own) & _keys(moved)
    goldens = [(rank, [label for label in labels if label.key in both]) for rank, labels in moved]
    actuals = [(rank, [_as(label, "acl") for label in labels if label.key in both]) for rank, labels in own]
    return _plan([*goldens, *actuals], world_size, "golden label in both runs")


_Ranks = Sequence[tuple[int, Sequence[RankLabel]]]


def _pair_with_references(labels: Sequence[RankLabel], wanted: set[LabelKey]) -> list[RankLabel]:
    """One rank's references as golden labels and its golden ones as actual.

    Where one of the two tells no layout and has the other's shape it has the other's layout.
    """
    sides = {
        side: {label.key: label for label in labels if label.key in wanted and label.record.side == side}
        for side in (REFERENCE, "pta")
    }
    found = []
    for side, other, name in ((REFERENCE, "pta", "pta"), ("pta", REFERENCE, "acl")):
        for key, label in sides[side].items():
            beside = sides[other].get(key)
            layout = label.record.layout
            if layout is None and beside is not None and beside.shape == label.shape:
                layout = beside.record.layout
            found.append(replace(label, record=replace(label.record, side=name, layout=layout)))
    return found


def _goldens(run: Sequence[ShardIndex]) -> _Ranks:
    return [(rank, [label for label in labels if label.record.side == "pta"]) for rank, labels in labels_by_rank(run)]


def _as(label: RankLabel, side: str) -> RankLabel:
    return replace(label, record=replace(label.record, side=side))


def _in_task(label: RankLabel, task: int) -> RankLabel:
    key = label.key
    return replace(label, key=LabelKey(task, key.label, key.occurrence), record=replace(label.record, task=task))


def _keys(ranks: _Ranks) -> set[LabelKey]:
    return {label.key for _, labels in ranks for label in labels}


def _tasks(ranks: _Ranks) -> list[int]:
    return sorted({label.key.task for _, labels in ranks for label in labels})


def _plan(ranks: _Ranks, world_size: int, what: str) -> Plan:
    with without_collection():
        plans, sides, _ = plan_labels(ranks, Planner(world_size, world_size, one_run=True))
    labels = []
    left_out = []
    for label in plans:
        certain = _certain(label, sides[label.key])
        if certain.pairs:
            labels.append(certain)
        else:
            left_out.append(_why(label, sides[label.key]))
    notes = [f"{len(left_out):,} labels with a {what} give no noise floor, e.g. {left_out[0]}"] if left_out else []
    return Plan(tuple(labels), {label.key: Level() for label in labels}, (), 0, tuple(notes))


def _certain(label: LabelPlan, sides: LabelSides) -> LabelPlan:
    """Keep the pairs of a label that surely belong together."""
    is_declared = any(each.record.layout is not None for each in sides.all_labels())
    pairs = tuple(
        [
            pair
            for pair in label.pairs
            if pair.rank not in label.unlike
            if _is_own(pair) or (INFERRED not in pair.layout and (is_declared or _same_bits(pair, sides)))
        ]
    )
    ranks = {pair.rank for pair in pairs}
    sides_of = {rank: each for rank, each in label.sides.items() if rank in ranks}
    return LabelPlan(label.key, sides_of, pairs, rows=label.rows)


def _is_own(pair: Pair) -> bool:
    """Tell whether a rank's tensor is compared with its own, place by place."""
    same_place = pair.golden.shape == pair.actual.shape and pair.golden_region == pair.actual_region
    return same_place and pair.golden.rank == pair.rank


def _same_bits(pair: Pair, sides: LabelSides) -> bool:
    """Tell whether a rank is compared with another's tensor, and its own side is equal to that rank's bit by bit."""
    own, other = (sides.actuals.get(rank) for rank in (pair.rank, pair.golden.rank))
    return own is not None and other is not None and own.content is not None and own.content == other.content


def _why(label: LabelPlan, sides: LabelSides) -> str:
    """Say why a label has no pair."""
    name = label.key.label
    for rank, golden in sorted(sides.goldens.items()):
        if golden.problem:
            return f"{name}: on rank {rank} it failed: {golden.problem}"
    if not sides.actuals:
        return f"{name}: it has no golden side"
    if (label.pairs and not label.unlike) or label.questions:
        return f"{name}: nothing tells how its tensors lie in the whole; give both labels their layout"
    return f"{name}: their shapes, types or layouts do not fit"

"""Suggest a map between two sides: by names, order, shapes and sampled values; joins are proved by comparing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.compare.comparer import Comparer
from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.core.weights import Partners
from aclcmp.orchestrator.idmap.candidates import candidate_labels, labels_by_rank
from aclcmp.orchestrator.idmap.joins import JoinCandidate, find_joins
from aclcmp.orchestrator.idmap.sampling import sample_values
from aclcmp.orchestrator.idmap.signatures import AGREE
from aclcmp.orchestrator.idmap.similarity import forms_of
from aclcmp.orchestrator.idmap.suggest import Proposal, Suggestion, propose_join, suggest
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.name_by_weights import name_by_weights
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.id_rules import MOST_STARS, IdMap, IdRule, JoinRule, needs_quotes, stars
from aclcmp.orchestrator.plan.planner import plan_two
from aclcmp.orchestrator.plan.two_runs import keep_side, map_records, task_numbers
from aclcmp.orchestrator.run.sources import LabelSource
from aclcmp.orchestrator.terminal.startup import slow_steps
from aclcmp.orchestrator.weights.names import numbers_of, template_of

_BY_WEIGHTS = ("the rows of the weights are the same",)
_MOST_LAYERS = 8
"""Layers that are compared, evenly spread from the first to the last."""


def suggest_map(golden: LabelSource, actual: LabelSource, comparer: Comparer) -> Suggestion:
    """Propose rules between the ids of two sides, by their first tasks."""
    known = name_by_weights(golden.indices, actual.indices, actual.world_size).partners
    names = {name for each in known for name in each.golden}, {name for each in known for name in each.actual_ids}
    sides = (_without(golden.indices, names[0]), _without(actual.indices, names[1]))
    tensors = [labels_by_rank(indices, side) for indices, side in zip(sides, ("pta", "acl"), strict=True)]
    with slow_steps("looking at values", sum(map(len, tensors))) as step:
        signatures = sample_values(tensors[0], tensors[1], step)
    theirs, ours = (
        [replace(label, signatures=of_side.get(label.data_id, ())) for label in candidate_labels(indices, side)]
        for indices, side, of_side in zip(sides, ("pta", "acl"), signatures, strict=True)
    )
    prove = partial(_prove, golden, actual, comparer)
    found = suggest(theirs, ours, find_joins(tensors[0], tensors[1], forms_of(theirs), forms_of(ours), prove))
    rules = list(_proposals(known))
    joins = [Proposal(rule, 1.0, _BY_WEIGHTS, count) for rule, count in rules if isinstance(rule, JoinRule)]
    single = [Proposal(rule, 1.0, _BY_WEIGHTS, count) for rule, count in rules if isinstance(rule, IdRule)]
    return replace(found, joins=(*joins, *found.joins), proposals=(*single, *found.proposals))


def _without(indices: Sequence[ShardIndex], names: set[str]) -> Sequence[ShardIndex]:
    """Leave out labels."""
    return map_records(indices, lambda each: None if each.data_id in names else each) if names else indices


def _proposals(known: Sequence[Partners]) -> Iterator[tuple[IdRule | JoinRule, int]]:
    """Yield the rules for partners, with stars for the numbers of layers, and how many actual labels each maps."""
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Partners]] = defaultdict(list)
    for each in known:
        goldens, actuals = (tuple(map(template_of, ids)) for ids in (each.golden, each.actual_ids))
        numbers = {numbers_of(name) for name in (*each.golden, *each.actual_ids)}
        alike[(goldens, actuals) if len(numbers) == 1 else (each.golden, each.actual_ids)].append(each)
    for (goldens, actuals), found in alike.items():
        if len(found) == 1 or stars(goldens[0]) > MOST_STARS:
            rules = [(each.golden, each.actual_ids) for each in found]
        else:
            rules = [(goldens, actuals)]
        for theirs, ours in rules:
            if not any(map(needs_quotes, (*theirs, *ours))):
                joined = len(theirs) + len(ours) > 2
                yield JoinRule(theirs, ours, "|") if joined else IdRule(theirs[0], ours[0]), len(found) * len(ours)


def _prove(
    golden: LabelSource, actual: LabelSource, comparer: Comparer, candidate: JoinCandidate, rule: JoinRule
) -> Proposal[JoinRule] | None:
    """Return the proposal of a join if all of the first layer's labels agrees under it.

    What later ones differ by may be a bug.
    """
    numbers = candidate.numbers
    layers = dict.fromkeys([*numbers[:: -(-len(numbers) // _MOST_LAYERS)], numbers[-1]])
    goldens, actuals = (
        [[form.labels[each].data_id for form in forms] for each in layers]
        for forms in (candidate.golden, candidate.actual)
    )
    sides = _only(golden.indices, "pta", goldens), _only(actual.indices, "acl", actuals)
    resolved = compare_and_resolve(
        plan_two(*sides, actual.world_size, IdMap([rule])),
        lambda pairs: comparer.compare_pairs(pairs, lambda _n, _b: None),
    )
    judgement = judge(resolved.plan, resolved.outcomes, run_failed=False)
    agreeing = {label.key.label for label in judgement.labels if _agrees(label)}
    names = [_names_of(rule, *ids) for ids in zip(goldens, actuals, strict=True)]
    if not agreeing.issuperset(names[0]):
        return None
    return propose_join(candidate, rule, [name in agreeing for each in names for name in each])


def _only(indices: Sequence[ShardIndex], side: str, ids: Sequence[Sequence[str]]) -> list[ShardIndex]:
    """Keep of a side's first task the labels of these ids, of those without names of rows the first call."""
    wanted = {data_id for each in ids for data_id in each}
    kept = keep_side(indices, side)
    first = task_numbers(kept)[:1]
    return [
        replace(
            index,
            records=tuple(
                record
                for record in index.records
                if record.task in first and record.data_id in wanted and (not record.occurrence or record.rows >= 0)
            ),
        )
        for index in kept
    ]


def _names_of(rule: JoinRule, golden: Sequence[str], actual: Sequence[str]) -> Sequence[str]:
    """Return the names under which labels are compared: parts by their several partners', a sum by its one."""
    return max(golden, actual, key=len) if rule.how == "|" else min(golden, actual, key=len)


def _agrees(label: LabelVerdict) -> bool:
    """Tell whether everything of a label was compared, and agrees but for round-off on every rank."""
    return bool(label.ranks) and all(
        verdict.metrics is not None
        and not verdict.uncovered
        and verdict.metrics.rel_l2 <= AGREE
        and verdict.metrics.row_p50 <= AGREE
        for verdict in label.ranks
    )

"""The names and layouts that weights tell, given to the labels of the actual side before these are planned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from aclcmp.labeling.layout import Layout, Partial
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.weight_table import RowForm, WeightTable
from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.text import count
from aclcmp.orchestrator.core.weights import Partners, WeightReport
from aclcmp.orchestrator.plan.id_rules import IdMap, JoinRule
from aclcmp.orchestrator.plan.layouts.interpretations import PROVED
from aclcmp.orchestrator.plan.two_runs import map_records, side_that_counts, task_numbers
from aclcmp.orchestrator.weights.check_weights import check_weights, note_on_order
from aclcmp.orchestrator.weights.names import fold_layers, short_name, template_of
from aclcmp.orchestrator.weights.partners import INPUT, find_partners
from aclcmp.orchestrator.weights.weight_map import RankTable, map_weights

_MOST_NAMED = 4
"""Rules that the note tells."""
_SUMMAND = Layout((Partial(),))
_ONE_SIDE = "weights are not checked: both runs hold the actual side's, and several ranks' parts are no golden weights"


@dataclass(frozen=True, slots=True)
class NamedByWeights:
    """The actual side's indices under golden's names, and what is known of its weights."""

    actual: Sequence[ShardIndex]
    """In a run that holds both sides, all of it."""
    joins: tuple[JoinRule, ...] = ()
    notes: tuple[str, ...] = ()
    report: WeightReport | None = None
    summands: frozenset[str] = frozenset()
    """Labels that may be summands, by the names of both sides."""
    partners: tuple[Partners, ...] = ()
    """Labels that have other names on the two sides."""
    sides: tuple[str, str] = ("pta", "acl")

    def of_summands(self, golden: Sequence[ShardIndex]) -> tuple[Sequence[ShardIndex], Sequence[ShardIndex]] | None:
        """Return the labels of both sides that may be summands, as these; None if there are none, or not in all tasks.

        In a run that holds both sides, these are twice the same.
        """
        of_actual = self.sides[1]
        open_ones = {
            record.data_id
            for index in self.actual
            for record in index.records
            if record.side == of_actual and record.layout is None and record.data_id in self.summands
        }
        if not open_ones:
            return None

        def keep(record: LabelRecord) -> LabelRecord | None:
            if record.data_id not in self.summands or record.side not in self.sides:
                return None
            is_open = record.side == of_actual and record.data_id in open_ones
            return replace(record, layout=record.layout or _SUMMAND) if is_open else record

        runs = (golden, self.actual)
        goldens, actuals = (map_records(run, keep) for run in runs)
        if any(task_numbers(one) != task_numbers(all_) for one, all_ in zip((goldens, actuals), runs, strict=True)):
            return None
        return goldens, actuals


def offer_sums(plan: Plan, summed: Plan) -> Plan:
    """Return a plan whose labels may also be summands as in another, if their values prove it."""
    options = {
        label.key: replace(
            label, pairs=tuple(replace(pair, layout=f"{pair.layout}{PROVED}") for pair in label.pairs), second_look=None
        )
        for label in summed.labels
        if any(pair.more_actual for pair in label.pairs)
    }
    return replace(plan, labels=tuple(_with_option(label, options.get(label.key)) for label in plan.labels))


def _with_option(label: LabelPlan, option: LabelPlan | None) -> LabelPlan:
    if option is None or label.questions or any(pair.more_actual for pair in label.pairs):
        return label
    others = label.second_look
    return replace(label, second_look=lambda: (*(others() if others is not None else ()), option))


def name_by_weights(
    golden: Sequence[ShardIndex], actual: Sequence[ShardIndex], ranks: int, ids: IdMap | None = None
) -> NamedByWeights:
    """Check the weights that both sides recorded, and name the actual side's labels by them.

    Both sides may be the same run. Names that both sides have, and what `ids` says, count before what weights say.
    """
    one_run = golden is actual
    theirs, ours = _tables(golden, "pta", or_only=not one_run), _tables(actual, "acl", or_only=not one_run)
    if not theirs or not ours:
        return NamedByWeights(actual, notes=tuple(_notes_on_one_side(theirs, ours)))
    if theirs[0][1].side == "acl" and len({rank for rank, _ in theirs}) > 1:
        return NamedByWeights(actual, notes=(_ONE_SIDE,))
    with without_collection():
        found = map_weights(theirs, [(rank, _whole_rows(table)) for rank, table in ours])
        assert found is not None
        report = check_weights(found, ranks)
    sides = ("pta", "acl") if one_run else (side_that_counts(golden, "pta"), side_that_counts(actual, "acl"))
    ids_of_sides = (_ids_of(golden, sides[0]), _ids_of(actual, sides[1]))
    known, renamed = _usable(find_partners(found), *ids_of_sides, ids or IdMap())
    named, joins, notes = _apply(actual, sides[1], [*known, *renamed], renamed)
    tensors = ((each.golden[0], tensor) for each in (*known, *renamed) for tensor in each.actual if tensor.summand)
    summands = frozenset(name for golden_id, tensor in tensors for name in (golden_id, tensor.label))
    notes = (*notes, *note_on_order(found))
    return NamedByWeights(named, joins, notes, report, summands, tuple(renamed), sides)


def _tables(indices: Sequence[ShardIndex], side: str, *, or_only: bool) -> list[RankTable]:
    """Return what ranks recorded of a side; with `or_only`, of the only side that there is."""
    tables = [(index.header.rank, table) for index in indices for table in index.weights]
    there = {table.side for _, table in tables}
    if or_only and len(there) == 1:
        (side,) = there
    return [(rank, table) for rank, table in tables if table.side == side]


def _whole_rows(table: WeightTable) -> WeightTable:
    """Return a table with the rows as they are only: a golden side that is compared with another was cut, too."""
    if table.side == "acl":
        return table
    kept = ({form: rows for form, rows in each.forms.items() if form == RowForm()} for each in table.parameters)
    parameters = (replace(each, forms=forms) for each, forms in zip(table.parameters, kept, strict=True))
    return replace(table, parameters=tuple(parameters))


def _notes_on_one_side(golden: Sequence[RankTable], actual: Sequence[RankTable]) -> Iterator[str]:
    if golden or actual:
        with_some, without = ("golden", "actual") if golden else ("actual", "golden")
        yield f"weights are not checked: the {with_some} side's rows were hashed, the {without} side's were not"


def _ids_of(indices: Sequence[ShardIndex], side: str) -> set[str]:
    return {record.data_id for index in indices for record in index.records if record.side == side}


def _usable(
    partners: Sequence[Partners], golden: set[str], actual: set[str], ids: IdMap
) -> tuple[list[Partners], list[Partners]]:
    """Return the partners that both sides labelled and that have their names already, and those that weights name.

    Left out are those that names of both sides, or the user's rules, contradict.
    """
    joins = {names for join in ids.joins for names in join.names(golden)}
    told = {name for each in actual if ids.rule_of(each) and (name := ids.golden_name_of(each)) is not None}
    told |= {name for goldens, _ in joins for name in goldens} | {name for name in golden if not ids.keeps_golden(name)}
    known, named = [], []
    for each in partners:
        goldens, actuals = each.golden, each.actual_ids
        if not (golden.issuperset(goldens) and actual.issuperset(actuals)):
            continue
        if (goldens, actuals) in joins or (not each.is_joined and ids.golden_name_of(actuals[0]) == goldens[0]):
            known.append(each)
            continue
        is_free = actual.isdisjoint(goldens) and golden.isdisjoint(actuals) and told.isdisjoint(goldens)
        is_ruled = ids.ranks or any(map(ids.rule_of, (*goldens, *actuals)))
        if is_free and not is_ruled and not any("*" in name for name in (*goldens, *actuals)):
            named.append(each)
    return known, named


def _apply(
    actual: Sequence[ShardIndex], side: str, partners: Sequence[Partners], renamed: Sequence[Partners]
) -> tuple[Sequence[ShardIndex], tuple[JoinRule, ...], tuple[str, ...]]:
    """Name labels, and give those without a layout theirs; also return the joins, and a note."""
    joins = tuple(JoinRule(each.golden, each.actual_ids, "|") for each in renamed if each.is_joined)
    names = {each.actual_ids[0]: each.golden[0] for each in renamed if not each.is_joined}
    layouts = {tensor.label: tensor for each in partners for tensor in each.actual if tensor.layout is not None}
    changed = {name for each in renamed for name in each.actual_ids}

    def change(record: LabelRecord) -> LabelRecord:
        if record.side != side:
            return record
        told = layouts.get(record.data_id)
        if told is not None and record.layout is None and record.shape and record.shape[-1] == told.size:
            changed.add(record.data_id)
            record = replace(record, layout=told.layout)
        if record.data_id in names or any(each in names for each in record.inputs):
            inputs = tuple(names.get(each, each) for each in record.inputs)
            record = replace(record, data_id=names.get(record.data_id, record.data_id), inputs=inputs)
        return record

    named = map_records(actual, change) if names or layouts else actual
    return named, joins, tuple(_notes(renamed, len(changed)))


def _notes(renamed: Sequence[Partners], labels: int) -> Iterator[str]:
    """Say of how many labels the weights told names or layouts, and which names these are."""
    if not labels:
        return
    if not renamed:
        yield f"layouts of {count(labels, 'label')} from the weights"
        return
    alike: dict[tuple[str, ...], list[Partners]] = defaultdict(list)
    for each in sorted(renamed, key=lambda each: not each.is_joined):
        if not each.actual_ids[0].endswith(INPUT):
            alike[tuple(map(template_of, (*each.golden, *each.actual_ids)))].append(each)
    rules = [_rule_words(of_rule) for of_rule in alike.values()]
    more = f" and {len(rules) - _MOST_NAMED:,} more" if len(rules) > _MOST_NAMED else ""
    yield f"names and layouts of {count(labels, 'label')} from the weights: {', '.join(rules[:_MOST_NAMED])}{more}"


def _rule_words(partners: Sequence[Partners]) -> str:
    """Return the partners of all layers as one: "model.layers.{0-29}.self_attn.qkv_proj = q_proj | k_proj | v_proj"."""
    first = partners[0]
    ours = [fold_layers([each.actual_ids[place] for each in partners]) for place in range(len(first.actual))]
    theirs = [fold_layers([each.golden[place] for each in partners]) for place in range(len(first.golden))]
    short = [short_name(f"{first.actual_ids[0]}.weight", name) for name in first.golden]
    names = (one if any(map(str.isdecimal, near.split("."))) else near for one, near in zip(theirs, short, strict=True))
    return f"{' | '.join(ours)} = {' | '.join(names)}"

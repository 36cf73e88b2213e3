"""From the shards of a run, or of two sides, to a plan: on this host, or on the nodes where they lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from aclcmp.labeling.shard.price_table import Price
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.cluster.cluster import LOCAL_RAY, Cluster, is_this_host
from aclcmp.orchestrator.cluster.file_locations import FileLocations, locate_shards, unreachable_sentences, where
from aclcmp.orchestrator.cluster.file_visibility import probe_visibility
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.margins import MarginPlan
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.core.weights import WeightReport
from aclcmp.orchestrator.pipeline.name_by_weights import NamedByWeights, name_by_weights, offer_sums
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES, LayoutRules
from aclcmp.orchestrator.plan.margin_plans import plan_margins
from aclcmp.orchestrator.plan.noise_plans import plan_reference, plan_repeat
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from aclcmp.orchestrator.plan.two_runs import as_golden
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.repeats import find_repeats
from aclcmp.orchestrator.run.shards import FoundShards, UnreadableShard, read_indices, read_some_indices
from aclcmp.orchestrator.run.sources import LabelSource, world_size
from aclcmp.orchestrator.terminal.screen import Screen
from aclcmp.orchestrator.transfer.fetched_ranks import fetched_ranks

RecordedRun = tuple[RunDir, RunRecord]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """The run that is compared, or the folder for the report on two sides, of which there is no record."""

    directory: RunDir
    record: RunRecord | None = None
    failed: bool = False
    """Something went wrong in a run of which `record` does not tell."""
    known: ResultCache | None = None
    """The results of comparing while the ranks ran."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The cluster, its pool of compare actors, and the screen that shows their progress."""

    cluster: Cluster
    pool: ActorPool
    screen: Screen


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """The plan of what to compare, and the plans by which noise floors are measured; and what ranks hold of weights."""

    plan: Plan
    floors: Mapping[FloorSource, Plan] = field(default_factory=dict)
    own: Plan | None = None
    """The plan by which own errors are measured, of a run with `--local`."""
    weights: WeightReport | None = None
    token_texts: Mapping[int, str] = field(default_factory=dict)
    """The text of tokens, as far as it was recorded."""
    margins: tuple[MarginPlan, ...] = ()
    """The plans by which it is measured what moved the margins between tokens."""
    price: Price | None = None
    """What quantisation costs golden, if it is quantised."""
    samples: tuple[tuple[FloorSource, Plan], ...] = ()
    """Further plans by which golden's reference measures noise: of a quantised golden one sample is not enough."""


@dataclass(frozen=True, slots=True)
class _LoadedRun:
    """The indices of a run's shards, and the reasons why some are missing."""

    indices: Sequence[ShardIndex]
    lost: Mapping[int, str] = field(default_factory=dict)
    """Ranks whose shards are out of reach or cannot be read, with the reason."""
    heard: Collection[tuple[LabelKey, int]] = ()
    """Each (label, rank) of these ranks that is known from a journal, or from comparing while they ran."""

    @staticmethod
    def of(found: FoundShards, record: RunRecord | None, lost: Mapping[int, str] = MappingProxyType({})) -> _LoadedRun:
        """Count a rank of which a shard cannot be read as lost, beside those that are out of reach."""
        found = found.of_whole_ranks()
        reasons = found.reasons(record.hosts if record is not None else {})
        heard = [(label, each.rank) for each in found.unreadable for label in each.labels]
        return _LoadedRun(found.indices, {**lost, **reasons}, heard)


def plan_local_run(
    run: RunDir, record: RunRecord | None, screen: Screen, layouts: LayoutRules, repeat: Path | None = None
) -> ComparisonPlan:
    """Plan a run by its shards on this host; `repeat` is another run of its script, to measure the noise by.

    The labels of a rank fail, with the reason, where its shards lie on another host or one cannot be read. Raises
    UsageError where none can.
    """
    repeats = {
        source: _LoadedRun.of(read_indices(other[0]), other[1])
        for source, other in find_repeats(run, repeat).items()
        if _may_measure_noise(run, source, other)
    }
    found = read_some_indices(run)
    here = {index.header.rank for index in found.indices} | {each.rank for each in found.unreadable}
    lost = {} if record is None else _ranks_on_other_hosts(run, record, here)
    return _plan_run(_LoadedRun.of(found, record, lost), record, screen, layouts, repeats)


def plan_shards(found: FoundShards, record: RunRecord | None, screen: Screen, layouts: LayoutRules) -> ComparisonPlan:
    """Plan a run whose ranks all are on this host by its shards; the labels of a rank fail of which one is lost."""
    return _plan_run(_LoadedRun.of(found, record), record, screen, layouts, {})


def plan_finished_run(run: ComparedRun, repeats: Mapping[FloorSource, RecordedRun], screen: Screen) -> ComparisonPlan:
    """Plan a run whose ranks ran on this host just now; the labels of a rank of which a shard cannot be read fail.

    `repeats` are further runs of its command, to measure noise floors by.
    """
    others = {
        source: _LoadedRun.of(read_indices(other[0]), other[1])
        for source, other in repeats.items()
        if _may_measure_noise(run.directory, source, other)
    }
    loaded = _LoadedRun.of(read_indices(run.directory), run.record)
    return _plan_run(loaded, run.record, screen, NO_RULES, others)


def plan_sides(
    golden: LabelSource, actual: LabelSource, screen: Screen, ids: IdMap | None, layouts: LayoutRules
) -> ComparisonPlan:
    """Plan two things that lie on this host. Raises UsageError when `ids` gives two labels one id."""
    _show_label_count(screen, (*golden.indices, *actual.indices))
    named = name_by_weights(golden.indices, actual.indices, actual.world_size, ids)
    plan_labels = partial(
        plan_two, world_size=actual.world_size, ids=ids, layouts=layouts, lost_goldens=golden.lost, lost=actual.lost
    )
    plan = _plan_named_sides(golden.indices, named, plan_labels)
    plan = replace(plan, notes=(*lost_sentences(golden, actual), *plan.notes, *named.notes))
    goldens = as_golden(golden.indices, actual.indices, ids)
    reference = plan_reference(goldens, golden.world_size, layouts)
    samples = _more_samples(goldens, golden.world_size, layouts)
    floors = {} if reference is None else {_source_of_reference(golden.indices): reference}
    texts, price = token_texts((*actual.indices, *golden.indices)), price_of(golden.indices)
    own = _without_renamed(plan, actual.indices) if actual.is_local else None
    return ComparisonPlan(plan, floors, own, named.report, texts, price=price, samples=samples)


def lost_sentences(golden: LabelSource, actual: LabelSource) -> list[str]:
    """Say which ranks of two sides cannot be read, and why."""
    sides = (("golden", golden.lost), ("actual", actual.lost))
    return [f"{side} run, {sentence}" for side, lost in sides for sentence in unreachable_sentences(lost)]


def plan_on_cluster(
    run: ComparedRun, workers: Workers, repeats: Mapping[FloorSource, RecordedRun], layouts: LayoutRules = NO_RULES
) -> tuple[ComparisonPlan, FileLocations]:
    """Plan a run whose ranks' shards lie on the nodes where they ran, and tell where.

    `repeats` are further runs of its command, to measure noise floors by. Of ranks that are lost meanwhile, the results
    from while they ran tell the labels. Nodes of the pool that have left the cluster are not asked.
    """
    assert run.record is not None
    loaded, places = _load_from_cluster((run.directory, run.record), workers)
    others = {
        source: _load_from_cluster(other, workers)[0]
        for source, other in repeats.items()
        if _may_measure_noise(run.directory, source, other)
    }
    if run.known is not None and loaded.lost:
        loaded = replace(loaded, heard=(*loaded.heard, *run.known.names()))
    return _plan_run(loaded, run.record, workers.screen, layouts, others), places


def plan_on_golden_values(
    golden: RunDir, run: RecordedRun, screen: Screen, layouts: LayoutRules = NO_RULES
) -> ComparisonPlan:
    """Plan a run into whose actual side the values of a `golden` run were put, on this host.

    With `--local` its labels measure own errors, beside those that the golden run's own actual side carries, if it has
    one. With `--inject` its labels are compared with golden's. Raises UsageError when a shard cannot be read.
    """
    directory, record = run
    found, computed = read_some_indices(golden).of_whole_ranks(), read_some_indices(directory).of_whole_ranks()
    goldens, actuals = found.indices, computed.indices
    lost, lost_actuals = found.reasons({}), computed.reasons(record.hosts)
    _show_label_count(screen, actuals)
    size = world_size(actuals, record)
    named = name_by_weights(goldens, actuals, size)
    plan_labels = partial(plan_two, world_size=size, layouts=layouts, lost_goldens=lost, lost=lost_actuals)
    measured = _plan_named_sides(goldens, named, plan_labels)
    replaced = _without_renamed(measured, actuals, record.inject)
    plan = replaced if record.inject else measured
    margins: tuple[MarginPlan, ...] = ()
    if not record.inject and any(each.side == "acl" for index in goldens for each in index.records):
        ranks = world_size(goldens, None)
        own = name_by_weights(goldens, goldens, ranks)
        plan = _plan_named_run(goldens, own, ranks, layouts, lost)
        margins = plan_margins(own.actual, ranks, layouts)
    sentences = [*unreachable_sentences(lost), *unreachable_sentences(lost_actuals)]
    plan = replace(plan, notes=(*sentences, *plan.notes, *named.notes))
    reference = plan_reference(goldens, world_size(goldens, None), layouts)
    floors = {} if reference is None else {_source_of_reference(goldens): reference}
    samples = _more_samples(goldens, world_size(goldens, None), layouts)
    own_plan, texts = None if record.inject else replaced, token_texts((*actuals, *goldens))
    return ComparisonPlan(plan, floors, own_plan, named.report, texts, margins, price_of(goldens), samples)


def _without_renamed(plan: Plan, actuals: Iterable[ShardIndex], injected: Collection[str] = ()) -> Plan:
    """Leave out labels of other names in the actual process, of those that were to be replaced: all, or some injected.

    It knew no golden value by the names that weights or a map tell, and replaced none.
    """
    recorded = {record.data_id for index in actuals for record in index.records if record.side == "acl"}

    def is_left_out(label: LabelPlan) -> bool:
        name = label.key.label
        return name not in recorded and bool(label.pairs or label.questions) and (not injected or name in injected)

    kept = tuple(label for label in plan.labels if not is_left_out(label))
    return plan if len(kept) == len(plan.labels) else replace(plan, labels=kept)


def _may_measure_noise(run: RunDir, source: FloorSource, other: RecordedRun) -> bool:
    """Tell whether a further run measures the noise: one within `run` only if it did not fail, a given one always."""
    directory, record = other
    return record.failure is None or directory.root != run.again(source.value)


def _ranks_on_other_hosts(run: RunDir, record: RunRecord, here: Collection[int]) -> dict[int, str]:
    """Return the ranks that ran on other hosts and have no shard on this one, each with where it is, in words."""
    if record.cluster == LOCAL_RAY:
        return {}
    fetched = fetched_ranks(run)
    ways = f"give --address {record.cluster}, or bring them with `aclcmp fetch {run.root} --shards`"
    return {
        rank.rank: f"its shards lie on {where((rank.node_id, rank.ip, rank.host))}: {ways}"
        for rank in record.ranks
        if rank.rank not in here and rank.rank not in fetched and not is_this_host(rank.host, rank.ip)
    }


def _load_from_cluster(run: RecordedRun, workers: Workers) -> tuple[_LoadedRun, FileLocations]:
    """Index a run's shards on the nodes where they lie; also return where the files of each rank are."""
    directory, record = run
    nodes = [node for node in workers.cluster.refresh() if node.node_id in workers.pool.cores]
    ran = {rank.rank: (rank.node_id, rank.ip, rank.host) for rank in record.ranks}
    found = locate_shards(ran, nodes, probe_visibility(directory, workers.cluster))
    indices: list[ShardIndex] = []
    unreadable: list[UnreadableShard] = []
    lost = dict(found.lost)
    for node, answer in workers.pool.read_indices(directory, found.readers).items():
        if isinstance(answer, str):
            lost |= dict.fromkeys(found.readers[node], f"its shards cannot be read: {answer}")
        else:
            indices += answer.indices
            unreadable += answer.unreadable
    return _LoadedRun.of(FoundShards(indices, unreadable), record, lost), found.places


def _plan_run(
    loaded: _LoadedRun,
    record: RunRecord | None,
    screen: Screen,
    layouts: LayoutRules,
    repeats: Mapping[FloorSource, _LoadedRun],
) -> ComparisonPlan:
    world = world_size(loaded.indices, record)
    named = name_by_weights(loaded.indices, loaded.indices, world)
    plan = _plan_named_run(loaded.indices, named, world, layouts, loaded.lost, loaded.heard)
    _show_label_count(screen, loaded.indices)
    without_floor = (
        f"no noise floor for {sentence}" for other in repeats.values() for sentence in unreachable_sentences(other.lost)
    )
    plan = replace(plan, notes=(*unreachable_sentences(loaded.lost), *plan.notes, *named.notes, *without_floor))
    floors = {source: plan_repeat(loaded.indices, other.indices, world, layouts) for source, other in repeats.items()}
    if reference := plan_reference(loaded.indices, world, layouts):
        floors[_source_of_reference(loaded.indices)] = reference
    return ComparisonPlan(
        plan,
        floors,
        weights=named.report,
        token_texts=token_texts(loaded.indices),
        margins=plan_margins(named.actual, world, layouts),
        price=price_of(loaded.indices),
        samples=_more_samples(loaded.indices, world, layouts),
    )


def _plan_named_run(
    indices: Sequence[ShardIndex],
    named: NamedByWeights,
    world: int,
    layouts: LayoutRules,
    lost: Mapping[int, str],
    heard: Collection[tuple[LabelKey, int]] = (),
) -> Plan:
    """Plan a run that holds both sides under the names that weights tell."""
    plan = plan_run(named.actual, world, layouts, lost, heard, named.joins)
    summed = named.of_summands(indices)
    return plan if summed is None else offer_sums(plan, plan_run(summed[1], world, layouts, lost))


def _plan_named_sides(golden: Sequence[ShardIndex], named: NamedByWeights, plan_labels: Callable[..., Plan]) -> Plan:
    """Plan two sides under the names that weights tell."""
    plan = plan_labels(golden, named.actual, joins=named.joins)
    summed = named.of_summands(golden)
    return plan if summed is None else offer_sums(plan, plan_labels(*summed))


def token_texts(indices: Iterable[ShardIndex]) -> dict[int, str]:
    """Return the texts of tokens that shards tell; of several the last one's count."""
    return {token: text for index in indices for token, text in index.token_texts.items()}


def price_of(indices: Iterable[ShardIndex]) -> Price | None:
    """Return what quantisation costs, as shards tell it."""
    return next((index.price for index in indices if index.price is not None), None)


def _more_samples(
    indices: Sequence[ShardIndex], world: int, layouts: LayoutRules
) -> tuple[tuple[FloorSource, Plan], ...]:
    """Return the plans of all samples of golden's reference beyond the first."""
    found: list[Plan] = []
    while (plan := plan_reference(indices, world, layouts, sample=len(found) + 1)) is not None:
        found.append(plan)
    return tuple((_source_of_reference(indices), plan) for plan in found)


def _source_of_reference(indices: Iterable[ShardIndex]) -> FloorSource:
    """Return what golden beside its reference measures."""
    price = price_of(indices)
    return FloorSource.QUANTISED if price is not None and price.rounds_inputs else FloorSource.REFERENCE


def _show_label_count(screen: Screen, indices: Sequence[ShardIndex]) -> None:
    labels = [label for index in indices for label in index.records]
    screen.show_label_totals(len(labels), sum(label.nbytes for label in labels))

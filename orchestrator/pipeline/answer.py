"""From a run directory and a pool of compare actors to the report: plan, compare, judge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.filesize import decimal

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.cluster.cluster import LOCAL_RAY, Cluster, is_this_host
from aclcmp.orchestrator.cluster.file_locations import FileLocations, locate_shards, unreachable_sentences, where
from aclcmp.orchestrator.cluster.file_visibility import probe_visibility
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.comparison import compare_pairs, count_ties
from aclcmp.orchestrator.compare.actors.second_look_parts import look_again
from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.compare.summaries import error_bar
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RunRecord, run_failed
from aclcmp.orchestrator.core.stats import Basis, Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, RankVerdict, Status
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.judge.collect_evidence import add_floors, collect_evidence
from aclcmp.orchestrator.judge.floor_profile import floors_from
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.measured_floors import floors_of
from aclcmp.orchestrator.pipeline.diagnose import NO_FINDINGS, diagnose
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.pipeline.ties import add_ties, tie_questions
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.plan.layouts.interpretations import PROVED
from aclcmp.orchestrator.plan.noise_plans import plan_reference, plan_repeat
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.repeats import find_repeats
from aclcmp.orchestrator.run.shards import read_indices
from aclcmp.orchestrator.run.sources import LabelSource, world_size
from aclcmp.orchestrator.terminal.screen import Screen
from aclcmp.orchestrator.transfer.fetched import fetched_ranks


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What is to be compared, and what to measure noise floors by."""

    plan: Plan
    floors: Mapping[FloorSource, Plan] = field(default_factory=dict)
    places: FileLocations | None = None
    """Where the files of ranks are; None: all on this host."""


def plan_local_run(
    run: RunDir, record: RunRecord | None, screen: Screen, layouts: LayoutRules, repeat: Path | None = None
) -> ComparisonPlan:
    """Plan a run by its shards on this host; `repeat` is another run of its script, to measure the noise by.

    Shards that lie on other hosts become a note. Raises UsageError when a shard cannot be read.
    """
    again = {
        source: _indices(other)
        for source, (other, of_other) in find_repeats(run, repeat).items()
        if _may_measure_noise(run, source, other, of_other)
    }
    indices = _indices(run)
    lost = {} if record is None else ranks_on_other_hosts(run, record, {index.header.rank for index in indices})
    return _plan_indices(indices, record, screen, lost=lost, layouts=layouts, again=again)


def _may_measure_noise(run: RunDir, source: FloorSource, other: RunDir, of_other: RunRecord) -> bool:
    """Whether a further run may measure the noise: one within a run that failed did not; one that was given does."""
    return of_other.failure is None or other.root != run.again(source.value)


def _indices(run: RunDir) -> list[ShardIndex]:
    indices, problems = read_indices(run)
    if problems:
        raise UsageError("; ".join(problems))
    return indices


def ranks_on_other_hosts(run: RunDir, record: RunRecord, here: Collection[int]) -> dict[int, str]:
    """The ranks of a run that ran on other hosts and of which there is no shard on this one; in words, where it is."""
    if record.cluster == LOCAL_RAY:
        return {}
    brought = fetched_ranks(run)
    ways = f"give --address {record.cluster}, or bring them with `aclcmp fetch {run.root} --shards`"
    return {
        rank.rank: f"its shards lie on {where((rank.node_id, rank.ip, rank.host))}: {ways}"
        for rank in record.ranks
        if rank.rank not in here and rank.rank not in brought and not is_this_host(rank.host, rank.ip)
    }


def plan_sides(
    golden: LabelSource, actual: LabelSource, screen: Screen, ids: IdMap | None, layouts: LayoutRules
) -> ComparisonPlan:
    """Plan two things that lie on this host. Raises UsageError when `ids` gives two labels one id."""
    labels = [label for side in (golden, actual) for index in side.indices for label in index.records]
    screen.show_recorded(len(labels), sum(label.nbytes for label in labels))
    plan = plan_two(golden.indices, actual.indices, actual.world_size, ids, layouts)
    reference = plan_reference(golden.indices, golden.world_size, layouts)
    return ComparisonPlan(plan, {} if reference is None else {FloorSource.REFERENCE: reference})


def answer_two(
    golden: LabelSource,
    actual: LabelSource,
    report: RunDir,
    planned: ComparisonPlan,
    cluster: Cluster,
    pool: ActorPool,
    screen: Screen,
    terms: JudgingOptions,
) -> Report:
    """Compare what was planned of two sides and judge it."""
    found = answer(report, None, planned, cluster, pool, screen, terms, failed=golden.failed or actual.failed)
    notes = [f"{name}: {side.root}, {side.words}" for name, side in (("golden", golden), ("actual", actual))]
    if golden.order != "calls":
        kept = "the times of its files" if golden.order == "times" else "their names, for its files keep no other"
        notes.append(f"golden's labels are in the order of {kept}; what is own and what inherited rests on that")
    return replace(found, notes=(*notes, *golden.notes, *actual.notes, *found.notes), order=golden.order)


def plan_on_cluster(
    run: RunDir,
    record: RunRecord,
    cluster: Cluster,
    pool: ActorPool,
    screen: Screen,
    again: Mapping[FloorSource, tuple[RunDir, RunRecord]],
    layouts: LayoutRules | None = None,
    known: ResultCache | None = None,
) -> ComparisonPlan:
    """Plan a run whose ranks' shards lie on the nodes where they ran; what cannot be read becomes a note.

    `again` are further runs of its command, to measure noise floors by; `known` is what was compared while the ranks
    ran: of ranks that are lost meanwhile it tells the labels. The pool is that of the nodes of the cluster;
    those of them that are gone meanwhile are not asked.
    """
    indices, problems, lost, places = _on_cluster(run, record, cluster, pool)
    others = {
        source: _on_cluster(*other, cluster, pool)[0]
        for source, other in again.items()
        if _may_measure_noise(run, source, *other)
    }
    heard = known.names() if known is not None and lost else ()
    planned = _plan_indices(indices, record, screen, problems, lost, layouts, again=others, heard=heard)
    return replace(planned, places=places)


def _on_cluster(
    run: RunDir, record: RunRecord, cluster: Cluster, pool: ActorPool
) -> tuple[list[ShardIndex], tuple[str, ...], dict[int, str], FileLocations]:
    """Index a run's shards where they lie; also what could not be read, and which ranks are lost and why."""
    nodes = [node for node in cluster.refresh() if node.node_id in pool.cores]
    ran = {rank.rank: (rank.node_id, rank.ip, rank.host) for rank in record.ranks}
    found = locate_shards(ran, nodes, probe_visibility(run, cluster))
    indices: list[ShardIndex] = []
    problems: list[str] = []
    lost = dict(found.lost)
    for node, answer in pool.read_indices(run, found.readers).items():
        if isinstance(answer, str):
            lost |= dict.fromkeys(found.readers[node], f"its shards cannot be read: {answer}")
        else:
            indices += answer[0]
            problems += answer[1]
    return indices, tuple(dict.fromkeys(problems)), lost, found.places


def answer(
    run: RunDir,
    record: RunRecord | None,
    planned: ComparisonPlan,
    cluster: Cluster,
    pool: ActorPool,
    screen: Screen,
    terms: JudgingOptions,
    *,
    clean: bool = False,
    failed: bool = False,
    known: ResultCache | None = None,
) -> Report:
    """Compare what was planned and judge it.

    `clean` removes the library's dumps that match; `failed` says that a run went wrong of which there is no `record`;
    `known` is what was compared while the ranks ran.
    """
    places = planned.places or FileLocations(cluster.driver_node_id)
    interrupted = False

    def compare(pairs: Sequence[Pair]) -> Outcomes:
        nonlocal interrupted
        if interrupted:  # Ctrl-C ends the comparison, not one round of it
            return {}
        names = {(pair.key, pair.rank) for pair in pairs}
        screen.add_pairs(len(names))
        found, left = known.take(pairs) if known is not None else ({}, pairs)
        screen.advance(len(found), 0)
        found |= compare_pairs(pool, left, places, screen.advance)
        interrupted = len(found) < len(names)
        return found

    done = compare_and_resolve(planned.plan, compare)
    plan, outcomes = done.plan, done.outcomes
    evidence = collect_evidence(plan, outcomes, run_failed=failed or run_failed(record), replicas=done.replicas)
    noise = [(FloorSource.REPEAT, done.noise)]
    noise += [(source, compare(floor.pairs)) for source, floor in planned.floors.items()]
    evidence = add_floors(evidence, floors_of(noise))
    if terms.profile is not None:
        evidence = add_floors(evidence, floors_from(terms.profile, evidence))
    judgement = judge_evidence(evidence, terms.policy)
    if questions := tie_questions(plan, judgement):
        evidence = add_ties(evidence, count_ties(pool, questions, places))
        judgement = judge_evidence(evidence, terms.policy)
    looks, patterns, hints = NO_FINDINGS
    if not interrupted:
        hosts = {rank.rank: rank.host for rank in record.ranks} if record else {}
        looks, patterns, hints = diagnose(
            plan, judgement, compare, lambda suspects: look_again(pool, suspects, places), hosts
        )
    notes = [record.stopped] if record is not None and record.stopped else []
    notes += [*plan.notes, *(note for floor in planned.floors.values() for note in floor.notes)]
    for end, how in ((", inferred", "inferred from the shapes of all ranks"), (PROVED, "proved on the values")):
        layouts = {pair.key.label: pair.layout for pair in plan.pairs if pair.layout.endswith(end)}
        if layouts:
            name, layout = next(iter(layouts.items()))
            count = f"{len(layouts):,} label{'s' * (len(layouts) > 1)}"
            notes.append(f"layout {how} for {count}, e.g. {name}: {layout.removesuffix(end)}")
    bases = Counter(outcome.basis for outcome in outcomes.values() if not isinstance(outcome, str))
    if estimated := bases[Basis.FINGERPRINT]:
        bar = error_bar(Basis.FINGERPRINT) or 0.0
        notes.append(f"compared by fingerprints: {estimated:,}; their relative L2 is an estimate, ±{bar:.0%} (2 σ)")
    if bounded := bases[Basis.NORMS]:
        notes.append(f"compared by moments and norms: {bounded:,}; their relative L2 is at least what is told")
    if len(outcomes) < plan.held:
        notes.append(f"interrupted: {plan.held - len(outcomes):,} pairs were not compared")
    if clean:
        files: dict[str, list[Path]] = defaultdict(list)
        for rank, paths in matching_dumps(judgement).items():
            files[places.home(rank)] += paths
        removed, nbytes = pool.remove_dumps(files, run.dumps)
        notes.append(f"removed {removed:,} dumped files that match ({decimal(nbytes)})")
    return Report(record, run.run_id, judgement, terms.policy.table(), tuple(notes), patterns, hints, looks)


def matching_dumps(judgement: Judgement) -> dict[int, list[Path]]:
    """The files of the accelerated library that are compared on each rank and match wherever they are compared."""

    def matches(verdict: RankVerdict) -> bool:
        by_values = verdict.stats is not None and (verdict.stats.basis is Basis.VALUES or verdict.bitwise)
        return verdict.status is Status.MATCH and by_values

    wrong = {
        verdict.actual.path
        for label in judgement.labels
        for verdict in label.ranks
        if label.level.low and verdict.actual is not None and not matches(verdict)
    }
    found: dict[int, dict[Path, None]] = defaultdict(dict)
    for label in judgement.labels:
        for verdict in label.ranks:
            if label.level.low and verdict.actual is not None and verdict.actual.path not in wrong:
                found[verdict.rank][Path(verdict.actual.path)] = None
    return {rank: list(paths) for rank, paths in found.items()}


def _plan_indices(
    indices: Sequence[ShardIndex],
    record: RunRecord | None,
    screen: Screen,
    problems: Sequence[str] = (),
    lost: Mapping[int, str] | None = None,
    layouts: LayoutRules | None = None,
    again: Mapping[FloorSource, Sequence[ShardIndex]] | None = None,
    heard: Collection[tuple[LabelKey, int]] = (),
) -> ComparisonPlan:
    world, rules = world_size(indices, record), layouts or LayoutRules()
    plan = plan_run(indices, world, rules, lost or {}, heard)
    labels = [label for index in indices for label in index.records]
    screen.show_recorded(len(labels), sum(label.nbytes for label in labels))
    notes = (*unreachable_sentences(lost or {}), *plan.notes, *problems)
    plan = replace(plan, unreadable=plan.unreadable + len(problems), notes=notes)
    floors = {source: plan_repeat(indices, others, world, rules) for source, others in (again or {}).items()}
    if reference := plan_reference(indices, world, rules):
        floors[FloorSource.REFERENCE] = reference
    return ComparisonPlan(plan, floors)

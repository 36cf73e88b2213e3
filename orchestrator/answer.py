"""From a run directory and a crew of compare actors to the report: plan, compare, judge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.filesize import decimal

from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.orchestrator.cluster import Cluster
from aclcmp.orchestrator.compare.actor import read_indices
from aclcmp.orchestrator.compare.crew import Crew, nodes_of_ranks
from aclcmp.orchestrator.compare.stats import Basis
from aclcmp.orchestrator.compare.summaries import error_bar
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.insight import NO_INSIGHT, insight
from aclcmp.orchestrator.judge.evidence import evidence_of, with_floors
from aclcmp.orchestrator.judge.floors import FloorSource, floors_of
from aclcmp.orchestrator.judge.judge import judged
from aclcmp.orchestrator.judge.profile import floors_from
from aclcmp.orchestrator.judge.verdicts import Judgement, RankVerdict, Status
from aclcmp.orchestrator.plan.floors import plan_reference, plan_repeat
from aclcmp.orchestrator.plan.label import PROVED
from aclcmp.orchestrator.plan.mapping import IdMap
from aclcmp.orchestrator.plan.model import Plan
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from aclcmp.orchestrator.plan.regions import Pair
from aclcmp.orchestrator.plan.relayout import LayoutRules
from aclcmp.orchestrator.record import RunRecord, run_failed
from aclcmp.orchestrator.report.model import Report
from aclcmp.orchestrator.rundir import RunDir, opened_run
from aclcmp.orchestrator.screen import Screen
from aclcmp.orchestrator.settle import Outcomes, compared
from aclcmp.orchestrator.sides import Side, world_size
from aclcmp.orchestrator.terms import AGAIN, Terms
from aclcmp.orchestrator.ties import tie_questions, with_ties


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be compared, and what to measure noise floors by."""

    plan: Plan
    floors: Mapping[FloorSource, Plan] = field(default_factory=dict)


def plan_here(
    run: RunDir, record: RunRecord | None, screen: Screen, layouts: LayoutRules, repeat: Path | None = None
) -> Planned:
    """Plan a run whose shards lie on this host; `repeat` is another run of its script, to measure the noise by.

    Raises UsageError when a shard cannot be read.
    """
    again = {
        source: _indices(RunDir(folder, ""))
        for source in AGAIN.values()
        if (folder := run.again(source.value)).is_dir()
    }
    if repeat is not None:
        again[FloorSource.REPEAT] = _indices(opened_run(repeat)[0])
    return _planned(_indices(run), record, screen, layouts=layouts, again=again)


def _indices(run: RunDir) -> list[ShardIndex]:
    indices, problems = read_indices(run)
    if problems:
        raise UsageError("; ".join(problems))
    return indices


def plan_sides(golden: Side, actual: Side, screen: Screen, ids: IdMap | None, layouts: LayoutRules) -> Planned:
    """Plan two things that lie on this host. Raises UsageError when `ids` gives two labels one id."""
    labels = [label for side in (golden, actual) for index in side.indices for label in index.records]
    screen.labelled(len(labels), sum(label.nbytes for label in labels))
    plan = plan_two(golden.indices, actual.indices, actual.world_size, ids, layouts)
    reference = plan_reference(golden.indices, golden.world_size, layouts)
    return Planned(plan, {} if reference is None else {FloorSource.REFERENCE: reference})


def answer_two(
    golden: Side,
    actual: Side,
    report: RunDir,
    planned: Planned,
    cluster: Cluster,
    crew: Crew,
    screen: Screen,
    terms: Terms,
) -> Report:
    """Compare what was planned of two sides and judge it."""
    found = answer(report, None, planned, cluster, crew, screen, terms, failed=golden.failed or actual.failed)
    notes = [f"{name}: {side.root}, {side.words}" for name, side in (("golden", golden), ("actual", actual))]
    return replace(found, notes=(*notes, *golden.notes, *actual.notes, *found.notes))


def plan_on_cluster(
    run: RunDir,
    record: RunRecord,
    cluster: Cluster,
    crew: Crew,
    screen: Screen,
    again: Mapping[FloorSource, tuple[RunDir, RunRecord]],
) -> Planned:
    """Plan a run whose ranks' shards lie on the nodes where they ran; what cannot be read becomes a note.

    `again` are further runs of its command, to measure noise floors by.
    """
    indices, problems = _on_cluster(run, record, cluster, crew)
    others = {source: _on_cluster(*other, cluster, crew)[0] for source, other in again.items()}
    return _planned(indices, record, screen, problems, again=others)


def _on_cluster(
    run: RunDir, record: RunRecord, cluster: Cluster, crew: Crew
) -> tuple[list[ShardIndex], tuple[str, ...]]:
    node_of = rank_nodes(record, cluster)
    indices: dict[Path, ShardIndex] = {}
    problems: list[str] = []
    for node, (found, unread) in crew.read_indices(run).items():
        # a shared file system shows every shard on every node: each counts where its rank ran
        for index in found:
            if node_of.get(index.header.rank, node) == node:
                indices.setdefault(index.files.journal, index)
        problems += unread
    return list(indices.values()), tuple(dict.fromkeys(problems))


def rank_nodes(record: RunRecord | None, cluster: Cluster) -> dict[int, str]:
    """Map every rank of a run to the node of the cluster that holds its shard."""
    ranks = record.ranks if record else ()
    return nodes_of_ranks({rank.rank: (rank.node_id, rank.ip, rank.host) for rank in ranks}, cluster.nodes)


def answer(
    run: RunDir,
    record: RunRecord | None,
    planned: Planned,
    cluster: Cluster,
    crew: Crew,
    screen: Screen,
    terms: Terms,
    *,
    clean: bool = False,
    failed: bool = False,
) -> Report:
    """Compare what was planned and judge it.

    `clean` removes the library's dumps that match; `failed` says that a run went wrong of which there is no `record`.
    """
    node_of = rank_nodes(record, cluster)
    interrupted = False

    def place(rank: int) -> str:
        return node_of.get(rank, cluster.driver_node_id)

    def compare(pairs: Sequence[Pair]) -> Outcomes:
        nonlocal interrupted
        if interrupted:  # Ctrl-C ends the comparison, not one round of it
            return {}
        names = {(pair.key, pair.rank) for pair in pairs}
        screen.comparing(len(names))
        found = crew.compare(pairs, place, screen.advance)
        interrupted = len(found) < len(names)
        return found

    done = compared(planned.plan, compare)
    plan, outcomes = done.plan, done.outcomes
    evidence = evidence_of(plan, outcomes, run_failed=failed or run_failed(record), replicas=done.replicas)
    noise = [(FloorSource.REPEAT, done.noise)]
    noise += [(source, compare(floor.pairs)) for source, floor in planned.floors.items()]
    evidence = with_floors(evidence, floors_of(noise))
    if terms.profile is not None:
        evidence = with_floors(evidence, floors_from(terms.profile, evidence))
    judgement = judged(evidence, terms.policy)
    if questions := tie_questions(plan, judgement):
        evidence = with_ties(evidence, crew.count_ties(questions, place))
        judgement = judged(evidence, terms.policy)
    looks, patterns, hints = NO_INSIGHT
    if not interrupted:
        hosts = {rank.rank: rank.host for rank in record.ranks} if record else {}
        looks, patterns, hints = insight(plan, judgement, compare, lambda suspects: crew.look(suspects, place), hosts)
    notes = [*plan.notes, *(note for floor in planned.floors.values() for note in floor.notes)]
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
            files[node_of.get(rank, cluster.driver_node_id)] += paths
        removed, nbytes = crew.remove_dumps(files, run.dumps)
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


def _planned(
    indices: Sequence[ShardIndex],
    record: RunRecord | None,
    screen: Screen,
    problems: Sequence[str] = (),
    layouts: LayoutRules | None = None,
    again: Mapping[FloorSource, Sequence[ShardIndex]] | None = None,
) -> Planned:
    world, rules = world_size(indices, record), layouts or LayoutRules()
    plan = plan_run(indices, world, rules)
    labels = [label for index in indices for label in index.records]
    screen.labelled(len(labels), sum(label.nbytes for label in labels))
    plan = replace(plan, unreadable=plan.unreadable + len(problems), notes=(*plan.notes, *problems))
    floors = {source: plan_repeat(indices, others, world, rules) for source, others in (again or {}).items()}
    if reference := plan_reference(indices, world, rules):
        floors[FloorSource.REFERENCE] = reference
    return Planned(plan, floors)

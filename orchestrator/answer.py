"""From a run directory and a crew of compare actors to the report: plan, compare, judge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.filesize import decimal

from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.orchestrator.cluster import Cluster
from aclcmp.orchestrator.compare.actor import read_indices
from aclcmp.orchestrator.compare.crew import Crew, nodes_of_ranks
from aclcmp.orchestrator.compare.stats import Basis
from aclcmp.orchestrator.compare.summaries import error_bar
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.judge.table import RELATIVE
from aclcmp.orchestrator.judge.verdicts import Judgement, RankVerdict, Status
from aclcmp.orchestrator.plan.label import PROVED
from aclcmp.orchestrator.plan.mapping import IdMap
from aclcmp.orchestrator.plan.model import Plan
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from aclcmp.orchestrator.plan.regions import Pair
from aclcmp.orchestrator.plan.relayout import LayoutRules
from aclcmp.orchestrator.record import RunRecord
from aclcmp.orchestrator.report.model import Report
from aclcmp.orchestrator.rundir import RunDir
from aclcmp.orchestrator.screen import Screen
from aclcmp.orchestrator.settle import Outcomes, compared
from aclcmp.orchestrator.sides import Side, run_failed, world_size


def plan_here(run: RunDir, record: RunRecord | None, screen: Screen, layouts: LayoutRules) -> Plan:
    """Plan a run whose shards lie on this host. Raises UsageError when a shard cannot be read."""
    indices, problems = read_indices(run)
    if problems:
        raise UsageError("; ".join(problems))
    return _plan(indices, record, screen, layouts=layouts)


def plan_sides(golden: Side, actual: Side, screen: Screen, ids: IdMap | None, layouts: LayoutRules) -> Plan:
    """Plan two things that lie on this host. Raises UsageError when `ids` gives two labels one id."""
    labels = [label for side in (golden, actual) for index in side.indices for label in index.records]
    screen.labelled(len(labels), sum(label.nbytes for label in labels))
    return plan_two(golden.indices, actual.indices, actual.world_size, ids, layouts)


def answer_two(
    golden: Side, actual: Side, report: RunDir, plan: Plan, cluster: Cluster, crew: Crew, screen: Screen
) -> Report:
    """Compare what was planned of two sides and judge it."""
    found = answer(report, None, plan, cluster, crew, screen, failed=golden.failed or actual.failed)
    notes = [f"{name}: {side.root}, {side.words}" for name, side in (("golden", golden), ("actual", actual))]
    return replace(found, notes=(*notes, *golden.notes, *actual.notes, *found.notes))


def plan_on_cluster(run: RunDir, record: RunRecord, cluster: Cluster, crew: Crew, screen: Screen) -> Plan:
    """Plan a run whose ranks' shards lie on the nodes where they ran; what cannot be read becomes a note."""
    node_of = rank_nodes(record, cluster)
    indices: dict[Path, ShardIndex] = {}
    problems: list[str] = []
    for node, (found, unread) in crew.read_indices(run).items():
        # a shared file system shows every shard on every node: each counts where its rank ran
        for index in found:
            if node_of.get(index.header.rank, node) == node:
                indices.setdefault(index.files.journal, index)
        problems += unread
    return _plan(list(indices.values()), record, screen, list(dict.fromkeys(problems)))


def rank_nodes(record: RunRecord | None, cluster: Cluster) -> dict[int, str]:
    """Map every rank of a run to the node of the cluster that holds its shard."""
    ranks = record.ranks if record else ()
    return nodes_of_ranks({rank.rank: (rank.node_id, rank.ip, rank.host) for rank in ranks}, cluster.nodes)


def answer(
    run: RunDir,
    record: RunRecord | None,
    plan: Plan,
    cluster: Cluster,
    crew: Crew,
    screen: Screen,
    *,
    clean: bool = False,
    failed: bool = False,
) -> Report:
    """Compare what was planned and judge it.

    `clean` removes the library's dumps that match; `failed` says that a run went wrong of which there is no `record`.
    """
    node_of = rank_nodes(record, cluster)
    interrupted = False

    def compare(pairs: Sequence[Pair]) -> Outcomes:
        nonlocal interrupted
        if interrupted:  # Ctrl-C ends the comparison, not one round of it
            return {}
        names = {(pair.key, pair.rank) for pair in pairs}
        screen.comparing(len(names))
        found = crew.compare(pairs, lambda rank: node_of.get(rank, cluster.driver_node_id), screen.advance)
        interrupted = len(found) < len(names)
        return found

    done = compared(plan, compare)
    plan, outcomes = done.plan, done.outcomes
    judgement = judge(plan, outcomes, run_failed=failed or run_failed(record), replicas=done.replicas)
    policy: dict[str, str | float] = {"name": "dtype table"}
    for dtype, (warn, fail) in RELATIVE.items():
        policy |= {f"{dtype}.warn": warn, f"{dtype}.fail": fail}
    notes = list(plan.notes)
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
    return Report(record, run.run_id, judgement, policy, tuple(notes))


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


def _plan(
    indices: Sequence[ShardIndex],
    record: RunRecord | None,
    screen: Screen,
    problems: Sequence[str] = (),
    layouts: LayoutRules | None = None,
) -> Plan:
    plan = plan_run(indices, world_size(indices, record), layouts or LayoutRules())
    labels = [label for index in indices for label in index.records]
    screen.labelled(len(labels), sum(label.nbytes for label in labels))
    return replace(plan, unreadable=plan.unreadable + len(problems), notes=(*plan.notes, *problems))

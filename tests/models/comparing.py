"""Comparison of run directories in this process: plan, compare and judge as the commands do it, without their Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, Status, worst
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.run.shards import read_indices
from aclcmp.orchestrator.run.sources import open_source


def judge_runs(
    golden: Path, actual: Path | None = None, ids: IdMap | None = None, rules: LayoutRules | None = None
) -> Judgement:
    """Compare one run, or golden and actual of two runs, and return the judgement."""
    rules = rules or LayoutRules()
    with TemporaryDirectory() as scratch:
        if actual is None:
            run, record = open_run(golden)
            found = read_indices(run)
            assert not found.unreadable
            plan = plan_run(found.indices, len(record.ranks), rules)
        else:
            first, second = (open_source(f, side, Path(scratch)) for f, side in ((golden, "pta"), (actual, "acl")))
            plan = plan_two(first.indices, second.indices, second.world_size, ids, rules)
        done = compare_and_resolve(plan, compare_pairs)
        return judge(done.plan, done.outcomes, run_failed=False, replicas=done.replicas)


def compare_pairs(pairs: Sequence[Pair]) -> Outcomes:
    found = OutcomeCollector(pairs)
    found.add(pairs, [read_pair_stats(pair) for pair in pairs])
    return found.complete()


def statuses(judgement: Judgement) -> dict[str, Status]:
    """Return the gravest status of each label over its tasks and calls."""
    found: dict[str, list[Status]] = {}
    for label in judgement.labels:
        found.setdefault(label.key.label, []).append(label.status)
    return {name: worst(each) for name, each in found.items()}


def layouts(judgement: Judgement) -> dict[str, set[str]]:
    """Return the layouts by which each label was compared."""
    found: dict[str, set[str]] = {}
    for label in judgement.labels:
        found.setdefault(label.key.label, set()).update(verdict.layout for verdict in label.ranks)
    return found


def reasons(judgement: Judgement, name: str) -> set[str]:
    """Return the reasons of a label's status on all ranks."""
    return {verdict.reason for label in judgement.labels if label.key.label == name for verdict in label.ranks}


def check_green(judgement: Judgement, at_least: int) -> None:
    """Check that everything was compared, at least so many labels, and matches."""
    wrong = [
        f"{label.key} rank {verdict.rank} {verdict.status.value} ({verdict.layout}): {verdict.reason}"
        for label in judgement.labels
        for verdict in label.ranks
        if verdict.status is not Status.MATCH
    ]
    assert not wrong, "\n".join((f"{len(wrong)} wrong:", *wrong[:12]))
    assert judgement.exit_code is ExitCode.MATCH and judgement.coverage.complete
    assert len(judgement.labels) >= at_least

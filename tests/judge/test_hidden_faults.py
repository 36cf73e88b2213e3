"""Faults that floors, depth, ties, ignored labels or inputs once hid, and reports that could not be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.evidence import Evidence, RankEvidence, ReplicaVerdict
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import Gap, GapKind
from aclcmp.orchestrator.core.regions import LabelKey, Region
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, Limits, Origin, Status
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.judge.collect_evidence import add_floors, collect_evidence
from aclcmp.orchestrator.judge.dtype_limits import MOST, limits_of
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Excuse, JumpRule, Policy, Scope
from aclcmp.orchestrator.pipeline.stored_reports import evidence_of_report
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from tests.judge.test_judge import X, plan_of, stats
from tests.judge.test_policy import evidence, layers, origins, statuses, with_error

IDS = np.arange(8)
OWN = Policy(fail_on=FailOn.OWN)


def changed(known: Evidence, name: str, **facts: Any) -> Evidence:
    """Evidence with other facts of one label on all ranks."""
    labels = [
        replace(each, ranks=tuple(replace(rank, **facts) for rank in each.ranks)) if each.key.label == name else each
        for each in known.labels
    ]
    return replace(known, labels=tuple(labels))


def ids(known: Evidence, name: str, ties: int = 0) -> Evidence:
    """Evidence in which one label is ids, of which one differs."""
    plan = plan_of([name], dtype="int64")
    wrong = IDS.copy()
    wrong[3] += 100
    (label,) = collect_evidence(plan, {(plan.keys[0], 0): stats(IDS, wrong)}, run_failed=False).labels
    (rank,) = label.ranks
    return changed(known, name, stats=rank.stats, metrics=rank.metrics, dtypes=rank.dtypes, ties=ties)


def limits(known: Evidence, *floors: Floor) -> tuple[Limits, Status]:
    found = judge_evidence(add_floors(known, {LabelKey(0, "x", 0): floors})).labels[0].ranks[0]
    assert found.limits is not None
    return found.limits, found.status


@pytest.mark.parametrize("source", list(FloorSource))
def test_runs_that_are_not_alike_are_no_floor(source: FloorSource) -> None:
    told, status = limits(evidence({"x": 0.9}), Floor(source, 1.4, 1.4))
    assert told.source == "float32 table" and status is Status.DIVERGED
    told, _ = limits(evidence({"x": 0.9}), Floor(source, 1.4, 1.4), Floor(FloorSource.PROFILE, 1e-4, 1e-4))
    assert told.fail == pytest.approx(2e-4) or source is FloorSource.PROFILE


def test_one_row_of_noise_hides_no_lost_row() -> None:
    plan = plan_of(["x"])
    lost = X.copy()
    lost[3] = 0
    known = collect_evidence(plan, {(plan.keys[0], 0): stats(X, lost)}, run_failed=False)
    told, status = limits(known, Floor(FloorSource.REPEAT, 0.1, 1.4))
    assert told.rows * told.fail == pytest.approx(MOST) and status is Status.DIVERGED


def test_the_noise_of_golden_says_nothing_of_a_narrower_dtype() -> None:
    known = changed(evidence({"x": 0.025}), "x", dtypes=("float32", "bfloat16"))
    floor = Floor(FloorSource.REFERENCE, 1e-6, 1e-6)
    assert limits(known, floor)[0].source == "bfloat16 table"
    assert limits(changed(known, "x", dtypes=("bfloat16", "float32")), floor)[0].source == "3 x reference floor"
    assert limits(known, Floor(FloorSource.PROFILE, 0.02, 0.02))[0].source == "2 x profile floor"


def test_no_depth_lets_everything_pass() -> None:
    assert limits_of("float32", "float32", depth=100_000).fail < 5e-3
    assert limits_of("float8_e5m2", "float8_e5m2", depth=100).fail == MOST < 1
    assert limits_of("float32", "float32", {"float32": (1.0, 2.0)}, depth=60).fail == 2.0, "as the policy says"


@pytest.mark.parametrize("name", ["step.20260115.out", f"x.{'9' * 400}", f"x.{'9' * 5000}"])
def test_long_numbers_are_no_layers(name: str) -> None:
    assert level_of(name, "", "").layer == ""
    assert statuses(judge_evidence(evidence({name: 0.01})))[name] is Status.DIVERGED


def test_what_is_ignored_explains_nothing() -> None:
    policy = replace(OWN, ignore=(Excuse(Scope("debug.**"), "not ported"),))
    found = judge_evidence(evidence({"debug.x": 0.9, "b": 0.3, "c": 0.3}), policy)
    assert found.exit_code is ExitCode.DIVERGED
    assert (origins(found)["b"], origins(found)["c"]) == (Origin.OWN, Origin.INHERITED)
    assert found.labels[2].root == LabelKey(0, "b", 0)
    found = judge_evidence(evidence({"a": 0.3, "debug.x": 0.3, "c": 0.3}, {"c": ("debug.x",)}), policy)
    assert origins(found)["c"] is Origin.INHERITED, "through what was ignored"
    steady = {"debug.x": 0.9, **layers([2e-5] * 8 + [1e-4])}
    assert judge_evidence(evidence(steady), policy).exit_code is ExitCode.DIVERGED, "it jumps"


def test_replicas_of_ignored_labels_are_in_no_count() -> None:
    replica = ReplicaVerdict(LabelKey(0, "debug", 0), "golden", True, (), (), 0.0, "unread", (0,))
    known = replace(evidence({"a": 1e-6, "debug": 1e-6}), replicas=(replica,))
    assert judge_evidence(known).exit_code is ExitCode.INCOMPLETE
    assert judge_evidence(known, Policy(ignore=(Excuse(Scope("debug"), ""),))).exit_code is ExitCode.MATCH


def test_what_was_not_compared_is_no_right_input() -> None:
    key = LabelKey(0, "b", 0)
    plan = plan_of(["a", "b", "c"], gaps=(Gap(key, 0, GapKind.MISMATCH, "other shapes"),))
    outcomes: Outcomes = {(each, 0): with_error(0.3) for each in plan.keys if each != key}
    known = collect_evidence(plan, outcomes, run_failed=False)
    facts = known.labels[2].ranks[0].actual
    assert facts is not None
    found = judge_evidence(changed(known, "c", actual=replace(facts, inputs=("b",))))
    assert origins(found) == {"a": Origin.OWN, "b": None, "c": Origin.INHERITED}
    assert found.labels[2].root == LabelKey(0, "a", 0)


def test_ids_of_wrong_scores_inherit() -> None:
    assert origins(judge_evidence(ids(evidence({"logits": 0.01, "ids": 0}), "ids")))["ids"] is Origin.INHERITED
    assert origins(judge_evidence(ids(evidence({"logits": 1e-7, "ids": 0}), "ids")))["ids"] is Origin.OWN


def test_ties_explain_no_nan_and_no_other_rank() -> None:
    tied = ids(evidence({"ids": 0, "x": 0.3}), "ids", ties=1)
    assert judge_evidence(tied, OWN).exit_code is ExitCode.MATCH
    broken = X.copy()
    broken[0, 0] = np.nan
    found = judge_evidence(changed(tied, "x", stats=stats(X, broken)), OWN)
    assert (found.exit_code, origins(found)["x"]) == (ExitCode.DIVERGED, Origin.OWN)
    label = tied.labels[0]
    two = replace(label, ranks=(*label.ranks, replace(label.ranks[0], rank=1, ties=0)))
    found = judge_evidence(replace(tied, labels=(two,)), OWN)
    assert [each.origin for each in found.labels[0].ranks] == [None, Origin.OWN]
    assert found.exit_code is ExitCode.DIVERGED


def test_what_follows_a_tie_does_not_jump() -> None:
    errors = {**layers([2e-5] * 8), "ids": 0.0, "layers.8.mlp": 1e-4}
    assert judge_evidence(ids(evidence(errors), "ids", ties=1)).exit_code is ExitCode.MATCH


def test_jumps_that_are_off_make_nothing_own() -> None:
    errors = {"a": 0.1, **layers([0.1] * 8 + [0.3])}
    assert origins(judge_evidence(evidence(errors)))["layers.8.mlp"] is Origin.OWN
    found = judge_evidence(evidence(errors), Policy(jump=JumpRule(on=False)))
    assert origins(found)["layers.8.mlp"] is Origin.INHERITED


def test_an_odd_replica_where_golden_is_missing() -> None:
    key = LabelKey(0, "layers.1.x", 0)
    plan = plan_of(["a", key.label], 2, gaps=(Gap(key, 1, GapKind.MISSING_GOLDEN, "no golden"),))
    outcomes: Outcomes = {(k, rank): with_error(0.1 if k != key else 1e-7) for k in plan.keys for rank in range(2)}
    replica = ReplicaVerdict(key, "actual", True, (1,), (0, 2), 0.5, "differs")
    found = judge_evidence(collect_evidence(plan, outcomes, run_failed=False, replicas=(replica,)))
    assert found.labels[1].ranks[1].status is Status.DIVERGED


def stored(judgement: Judgement, folder: Path) -> Judgement:
    path = folder / "report.h5"
    write_h5(Report(None, "x", judgement, Policy().table(), ()), path)
    return judge_evidence(evidence_of_report(read_h5(path, None)))


def test_reasons_of_a_stored_report_name_the_same_row(tmp_path: Path) -> None:
    noise = np.zeros_like(X)
    noise[5] = 1e-6
    plan = plan_of(["x"])
    known = collect_evidence(plan, {(plan.keys[0], 0): stats(X, X + noise)}, run_failed=False)
    found = judge_evidence(known)
    again = stored(found, tmp_path)
    reasons = [each.labels[0].ranks[0].reason for each in (found, again)]
    assert reasons[0] == reasons[1] and "(row 5)" in reasons[0]


def test_float64_of_both_signs_can_be_reported(tmp_path: Path) -> None:
    x = np.full((8, 16), 1e200)
    region = Region.whole(x.shape)
    golden, actual = (Operand(side.ravel(), "float64", x.shape, region) for side in (x, -x))
    found = pair_stats(golden, actual, x.shape, region)
    assert found.max_ulp == 2**63 - 1
    plan = plan_of(["x"], dtype="float64")
    judgement = judge_evidence(collect_evidence(plan, {(plan.keys[0], 0): found}, run_failed=False))
    assert stored(judgement, tmp_path).exit_code is ExitCode.DIVERGED


def test_nothing_known_of_a_rank_is_evidence_of_a_failure() -> None:
    known = evidence({"x": 1e-6})
    bare = replace(known.labels[0], ranks=(RankEvidence(rank=0, golden=None, actual=None),))
    assert judge_evidence(replace(known, labels=(bare,))).exit_code is ExitCode.INCOMPLETE

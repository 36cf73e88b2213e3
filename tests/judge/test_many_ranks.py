"""What spares a million verdicts time and memory says the same: words and evidence that are made when they are read."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np

from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence, RankEvidence
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import Origin, Status, changed
from aclcmp.orchestrator.judge.collect_evidence import add_floors, collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.limits import Depths, limits_for
from aclcmp.orchestrator.judge.pair_status import judge_pair, status_and_margin
from aclcmp.orchestrator.judge.policy import Policy
from tests.report.made_up import stats_of

KEYS = [LabelKey(0, f"layers.{layer}.mlp", 0) for layer in range(4)]
FACTS = SideFacts("f.h5", "float32", (6, 4), "cpu", "model.py:7", 0, 0.0)


def outcome(number: int, rank: int) -> PairStats | str:
    if (number + rank) % 7 == 0:
        return "the file is gone"
    golden = np.random.default_rng(number).standard_normal((6, 4))
    error = np.random.default_rng(rank).standard_normal((6, 4)) * (0.3 if number > 1 and rank == 3 else 3e-7)
    if (number, rank) == (2, 1):
        error[2, 1] = np.nan
    return stats_of(golden, golden + (error if rank else 0.0))


def plan_and_outcomes() -> tuple[Plan, dict[tuple[LabelKey, int], PairStats | str]]:
    """Four labels on eight ranks: of one rank each there is a gap, of another a part, and one was not compared."""
    whole, source = Region.whole((6, 4)), Source("f.h5", 0, "float32", (6, 4))
    labels = []
    outcomes: dict[tuple[LabelKey, int], PairStats | str] = {}
    for number, key in enumerate(KEYS):
        ranks = [rank for rank in range(8) if rank != number]
        pairs = [Pair(key, rank, source, whole, source, whole, (6, 4), whole, "same shape") for rank in ranks]
        gap = Gap(key, number, GapKind.MISSING_ACTUAL, "no actual side")
        sides = {rank: Sides(FACTS, FACTS if rank != number else None) for rank in range(8)}
        labels.append(LabelPlan(key, sides, tuple(pairs), (gap,), {7: "rows 3-4 have no golden"}))
        outcomes |= {(key, rank): outcome(number, rank) for rank in ranks if rank != 6}
    return Plan(tuple(labels), {key: level_of(key.label, "", "") for key in KEYS}, (), 0, ()), outcomes


def told(evidence: Evidence, policy: Policy) -> list[tuple[object, ...]]:
    """Status, margin and words of each (label, rank), weighed one by one."""
    depths = Depths()
    found: list[tuple[object, ...]] = []
    for label in evidence.labels:
        depth = depths.of(label)
        for each in label.ranks:
            if each.stats is None or each.metrics is None:
                found.append((None, None, each.gap_reason))
                continue
            assert each.metrics == metrics_of(each.stats)
            status, margin, words = judge_pair(
                each.stats, each.metrics, limits_for(label, each, depth, policy), each.ties
            )
            assert status_and_margin(each.stats, each.metrics, limits_for(label, each, depth, policy), each.ties) == (
                status,
                margin,
            )
            found.append((status, margin, words))
    return found


def test_words_are_those_of_weighing() -> None:
    plan, outcomes = plan_and_outcomes()
    evidence = collect_evidence(plan, outcomes, run_failed=False)
    verdicts = [verdict for label in judge_evidence(evidence).labels for verdict in label.ranks]
    assert [verdict.rank for verdict in verdicts] == list(range(8)) * 4
    for verdict, (status, margin, words) in zip(verdicts, told(evidence, Policy()), strict=True):
        if verdict.stats is None:
            assert verdict.reason == words and verdict.margin is None
        elif verdict.rank == 7 and status in (Status.MATCH, Status.DRIFT):
            assert (verdict.status, verdict.reason) == (Status.MISSING, f"rows 3-4 have no golden; the rest: {words}")
        else:
            assert (verdict.status, verdict.margin, verdict.reason) == (status, margin, words)
    reasons = {verdict.reason for verdict in verdicts}
    assert {"the file is gone", "was not compared", "no actual side"} <= reasons
    assert {verdict.status for verdict in verdicts} == set(Status) - {Status.DRIFT, Status.MISMATCH}


def test_a_verdict_with_other_fields_keeps_its_words() -> None:
    plan, outcomes = plan_and_outcomes()
    one = judge_evidence(collect_evidence(plan, outcomes, run_failed=False)).labels[3].ranks[4]
    other = changed(one, origin=Origin.OWN)
    assert other == replace(one, origin=Origin.OWN) and other.reason == one.reason != ""
    assert changed(one, reason="so").reason == "so" and pickle.loads(pickle.dumps(one)) == one


def test_floors_are_added_to_what_is_made_later() -> None:
    plan, outcomes = plan_and_outcomes()
    evidence = collect_evidence(plan, outcomes, run_failed=False)
    repeat, profile = Floor(FloorSource.REPEAT, 1e-7, 1e-7), Floor(FloorSource.PROFILE, 2e-7, 2e-7)
    better = Floor(FloorSource.PROFILE, 3e-7, 3e-7)
    found = add_floors(add_floors(evidence, {KEYS[1]: (profile,)}), {KEYS[1]: (repeat, better), KEYS[2]: (repeat,)})
    assert [{each.floors for each in label.ranks} for label in found.labels] == [
        {()},
        {(repeat, better)},
        {(repeat,)},
        {()},
    ]
    assert [each.rank for each in found.labels[1].ranks] == list(range(8))
    plain = tuple(LabelEvidence(each.key, each.level, each.ranks) for each in found.labels)
    assert judge_evidence(found) == judge_evidence(replace(found, labels=plain))


def test_evidence_may_still_be_given_as_it_is() -> None:
    bare = LabelEvidence(KEYS[0], level_of("x", "", ""), (RankEvidence(rank=0, golden=None, actual=None),))
    assert judge_evidence(Evidence((bare,))).labels[0].ranks[0].status is Status.FAILED
    assert judge_evidence(Evidence((replace(bare, ranks=()),))).labels[0].status is Status.MATCH

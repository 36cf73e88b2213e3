"""Limits from rules, floors and depth; jumps; own and inherited; what a policy lets pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.core.evidence import Evidence
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.plan import Gap, GapKind
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.judge.collect_evidence import add_floors, collect_evidence
from aclcmp.orchestrator.judge.floor_profile import floors_from, merge_profiles, profile_of
from aclcmp.orchestrator.judge.growth import jump
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.measured_floors import floors_of
from aclcmp.orchestrator.judge.policy import Excuse, JumpRule, LimitRule, Policy, Scope
from tests.judge.test_judge import FACTS, X, plan_of, stats

DEFAULT = Policy()
RANDOM = np.random.default_rng(1)


def with_error(error: float) -> PairStats:
    """Statistics of a float32 pair whose relative L2 error is about `error`, spread evenly."""
    noise = RANDOM.standard_normal(X.shape)
    noise *= np.linalg.norm(X) / np.linalg.norm(noise)
    return stats(X, (X + error * noise).astype(np.float32))


def evidence(errors: dict[str, float], inputs: dict[str, tuple[str, ...]] | None = None) -> Evidence:
    plan = plan_of(list(errors))
    found = collect_evidence(plan, {(key, 0): with_error(errors[key.label]) for key in plan.keys}, run_failed=False)
    labels = []
    for label in found.labels:
        facts = replace(FACTS, inputs=(inputs or {}).get(label.key.label, ()))
        labels.append(replace(label, ranks=tuple(replace(each, actual=facts) for each in label.ranks)))
    return replace(found, labels=tuple(labels))


def statuses(judgement: Judgement) -> dict[str, Status]:
    return {label.key.label: label.status for label in judgement.labels}


def origins(judgement: Judgement) -> dict[str, Origin | None]:
    return {label.key.label: label.ranks[0].origin for label in judgement.labels}


def layers(errors: list[float]) -> dict[str, float]:
    return {f"layers.{i}.mlp": error for i, error in enumerate(errors)}


def test_limits_grow_with_depth() -> None:
    errors = {"layers.0.x": 6e-4, "layers.24.x": 6e-4, "head": 6e-4}
    policy = replace(DEFAULT, own_factor=1e9)
    found = judge_evidence(evidence(errors), policy)
    assert list(statuses(found).values()) == [Status.DIVERGED, Status.DRIFT, Status.DRIFT]
    limits = found.labels[1].ranks[0].limits
    assert (
        limits is not None
        and (limits.warn, limits.fail) == pytest.approx((2e-5, 1e-3))
        and limits.source == "float32 table, layer 24"
    )


def test_a_floor_is_better_than_the_table_and_the_first_source_counts() -> None:
    key = LabelKey(0, "x", 0)
    floors = (Floor(FloorSource.PROFILE, 1e-2, 1e-2), Floor(FloorSource.REFERENCE, 1e-4, 4e-4))
    found = judge_evidence(add_floors(evidence({"x": 2e-4}), {key: floors})).labels[0].ranks[0]
    assert found.limits is not None and found.limits.source == "3 x reference floor"
    assert (found.limits.warn, found.limits.fail, found.limits.rows) == pytest.approx((1.5e-4, 3e-4, 4.0))
    assert found.status is Status.DRIFT
    assert judge_evidence(add_floors(evidence({"x": 4e-4}), {key: floors})).labels[0].status is Status.DIVERGED


def test_a_floor_of_zero_limits_nothing_and_none_is_below_round_off() -> None:
    key = LabelKey(0, "x", 0)
    nothing = (Floor(FloorSource.REPEAT, 0.0, 0.0),)
    assert judge_evidence(add_floors(evidence({"x": 5e-6}), {key: nothing})).labels[0].status is Status.MATCH
    tiny = (Floor(FloorSource.REPEAT, 1e-12, 1e-12),)
    assert judge_evidence(add_floors(evidence({"x": 1e-7}), {key: tiny})).labels[0].status is Status.MATCH
    assert judge_evidence(add_floors(evidence({"x": 5e-6}), {key: tiny})).labels[0].status is Status.DIVERGED


def test_floors_are_the_largest_over_ranks_and_what_was_not_read_counts_not() -> None:
    key = LabelKey(0, "x", 0)
    outcomes: dict[tuple[LabelKey, int], PairStats | str] = {(key, 0): with_error(1e-4), (key, 1): with_error(1e-3)}
    (floor,) = floors_of([(FloorSource.REPEAT, outcomes | {(key, 2): "torn"})])[key]
    assert floor.rel_l2 == pytest.approx(1e-3, rel=0.01)
    assert floors_of([(FloorSource.REPEAT, {(key, 2): "torn"})]) == {}


def test_a_rule_of_the_policy_is_asked_before_floors() -> None:
    key = LabelKey(0, "x", 0)
    policy = replace(DEFAULT, rules=(LimitRule(Scope("x", "float32"), 0.1, 0.4), LimitRule(Scope(), 1e-9, 1e-9)))
    floors = {key: (Floor(FloorSource.REFERENCE, 1e-4, 1e-4),)}
    found = judge_evidence(add_floors(evidence({"x": 0.15, "y": 1e-6}), floors), policy)
    assert statuses(found) == {"x": Status.DRIFT, "y": Status.DIVERGED}


def test_what_drifts_and_jumps_is_wrong() -> None:
    steady = [2e-5 * 1.05**i for i in range(10)]
    found = judge_evidence(evidence(layers([*steady, 1e-4, 1e-4])))
    wrong = found.first_divergence
    assert wrong is not None and wrong.key.label == "layers.10.mlp"
    assert "times that of the layers before it" in wrong.why
    assert statuses(found)["layers.11.mlp"] is Status.DRIFT, "what follows carries the error and is judged by level"
    assert judge_evidence(evidence(layers(steady + [3e-5] * 4))).exit_code is ExitCode.MATCH
    quiet = replace(DEFAULT, jump=JumpRule(on=False))
    assert judge_evidence(evidence(layers([*steady, 1e-4])), quiet).exit_code is ExitCode.MATCH


@given(st.lists(st.floats(1e-7, 1e-2), min_size=1, max_size=20), st.floats(1.0, 1.6))
def test_steady_growth_is_no_jump(start: list[float], growth: float) -> None:
    errors = [start[0] * growth**i for i in range(len(start))]
    assert jump(errors, 1e-8, 1.7 if growth < 1.1 else 20) is None


def test_own_or_inherited() -> None:
    found = judge_evidence(evidence({"a": 1e-6, "b": 0.1, "c": 0.2, "d": 0.2, "e": 0.95, "f": 0.95}))
    assert origins(found) == dict(
        zip("abcdef", [None, Origin.OWN, Origin.INHERITED, Origin.INHERITED, Origin.OWN, Origin.INHERITED], strict=True)
    )
    roots = {label.key.label: label.root.label if label.root else None for label in found.labels}
    assert roots == {"a": None, "b": None, "c": "b", "d": "b", "e": None, "f": "e"}


def test_named_inputs_tell_independent_roots() -> None:
    errors = {"vision": 0.5, "text": 0.4, "merged": 0.6, "other": 0.5}
    inputs = {"text": ("tokens", "embedding"), "merged": ("vision", "text"), "other": ("clean",)}
    found = judge_evidence(evidence({"clean": 1e-7, "embedding": 1e-7, **errors}, inputs))
    told = {name: origin for name, origin in origins(found).items() if origin}
    assert told == {
        "vision": Origin.OWN,
        "text": Origin.OWN,
        "merged": Origin.INHERITED,
        "other": Origin.OWN,
    }
    assert next(each.root for each in found.labels if each.key.label == "merged") == LabelKey(0, "vision", 0)


def excused(judgement: Judgement) -> dict[str, str]:
    return {label.key.label: label.ranks[0].excused for label in judgement.labels if label.ranks[0].excused}


def test_allowed_labels_keep_their_status_and_do_not_fail() -> None:
    allow = (Excuse(Scope("b"), "known"), Excuse(Scope("c"), "small", up_to=0.15))
    policy = replace(DEFAULT, allow=allow)
    found = judge_evidence(evidence({"a": 1e-6, "b": 0.1, "c": 0.12}), policy)
    assert found.exit_code is ExitCode.MATCH and found.first_divergence is None
    assert statuses(found)["b"] is Status.DIVERGED and excused(found) == {"b": "known", "c": "small"}
    found = judge_evidence(evidence({"a": 1e-6, "b": 0.1, "c": 0.2}), policy)
    assert found.exit_code is ExitCode.DIVERGED and found.first_divergence is not None
    assert (found.first_divergence.key.label, found.first_divergence.origin) == ("c", Origin.INHERITED)
    assert judge_evidence(evidence({"a": 1e-6, "b": 0.1, "c": 0.2}), replace(policy, fail_on=FailOn.OWN)).exit_code == 0
    other_rank = (Excuse(Scope("b"), "", ranks=frozenset({7})),)
    assert judge_evidence(evidence({"b": 0.1}), replace(DEFAULT, allow=other_rank)).exit_code is ExitCode.DIVERGED


def test_ignored_labels_are_in_no_count() -> None:
    gap = Gap(LabelKey(0, "b", 0), 0, GapKind.MISSING_ACTUAL, "no actual")
    plan = plan_of(["a", "b", "c"], gaps=(gap,))
    outcomes: Outcomes = {(LabelKey(0, "a", 0), 0): with_error(1e-6), (LabelKey(0, "c", 0), 0): with_error(0.3)}
    known = collect_evidence(plan, outcomes, run_failed=False)
    policy = replace(DEFAULT, ignore=(Excuse(Scope("[bc]"), "debug"),))
    found = judge_evidence(known, policy)
    assert found.exit_code is ExitCode.MATCH
    assert (found.coverage.compared, found.coverage.missing_actual, found.coverage.ignored) == (1, 0, 2)
    everything = replace(DEFAULT, ignore=(Excuse(Scope(), ""),))
    assert judge_evidence(known, everything).exit_code is ExitCode.INCOMPLETE, "nothing compared is never green"


def test_fail_on() -> None:
    drifting = evidence({"a": 1e-4})
    assert judge_evidence(drifting).exit_code is ExitCode.MATCH
    assert judge_evidence(drifting, replace(DEFAULT, fail_on=FailOn.DRIFT)).exit_code is ExitCode.DIVERGED
    assert judge_evidence(evidence({"a": 0.1}), replace(DEFAULT, fail_on=FailOn.OWN)).exit_code is ExitCode.DIVERGED


def test_a_profile_of_right_runs_is_a_floor_by_kind() -> None:
    right = judge_evidence(evidence(layers([1e-5, 9e-5])))
    profile = merge_profiles([profile_of(right), profile_of(judge_evidence(evidence(layers([2e-5]))))])
    ((key, usual),) = profile.items()
    assert key.kind == "layers.*.mlp" and key.golden_dtype == "float32" and key.golden_device == "cpu"
    assert usual.rel_l2 == pytest.approx(9e-5, rel=0.01) and usual.measured == 3
    later = evidence({"layers.30.mlp": 3e-4, "other": 3e-4})
    found = judge_evidence(add_floors(later, floors_from(profile, later)))
    assert statuses(found) == {"layers.30.mlp": Status.DIVERGED, "other": Status.DRIFT}


def test_the_price_of_quantisation_is_told_from_a_bug() -> None:
    key = LabelKey(0, "x", 0)
    floors = {key: (Floor(FloorSource.QUANTISED, 3e-2, 9e-2),)}
    said = {
        error: judge_evidence(add_floors(evidence({"x": error}), floors)).labels[0].ranks[0].reason
        for error in (1e-9, 4e-2, 2e-1)
    }
    assert "price" not in said[1e-9]
    assert said[4e-2].endswith("(3 x quantised floor): the price of quantisation")
    assert said[2e-1].endswith("(3 x quantised floor): more than the price of quantisation")

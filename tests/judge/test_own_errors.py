"""Measured own errors: they say what is own and what inherited, and make wrong what carried errors hide."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from aclcmp.orchestrator.core.evidence import OwnError
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Outcome
from aclcmp.orchestrator.core.verdicts import Judgement, LabelVerdict, Limits, Origin, Status
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.own_errors import Measured, add_own_errors, judge_own_errors, own_errors
from aclcmp.orchestrator.judge.policy import LimitRule, Policy, Scope
from tests.judge.test_judge import X, plan_of, stats

NAMES = [f"layers.{layer}.{part}" for layer in range(8) for part in ("norm", "attn", "mlp")]
RANDOM = np.random.default_rng(5)


def off_by(error: float, x: np.ndarray = X) -> Outcome:
    noise = RANDOM.standard_normal(x.shape)
    noise *= np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return stats(x, (x + error * noise).astype(x.dtype))


def judged(
    carried: Sequence[float], own: Mapping[str, float], noise: float = 3e-7, policy: Policy | None = None
) -> Judgement:
    """Judge labels of these errors; `own` are the own errors that are more than noise, nan: not measured."""
    plan = plan_of(NAMES)
    evidence = collect_evidence(
        plan, {(key, 0): off_by(error) for key, error in zip(plan.keys, carried, strict=True)}, run_failed=False
    )
    measured = {
        (key, 0): off_by(own.get(key.label, noise)) for key in plan.keys if not math.isnan(own.get(key.label, noise))
    }
    found = own_errors(collect_evidence(plan, measured, run_failed=False))
    return judge_evidence(add_own_errors(evidence, found), policy or Policy())


def own_ones(judgement: Judgement) -> list[str]:
    return [label.key.label for label in judgement.labels if label.ranks[0].origin is Origin.OWN]


def label(judgement: Judgement, name: str) -> LabelVerdict:
    return next(each for each in judgement.labels if each.key.label == name)


CARRIED = [1e-6] * 4 + [0.3] * 20
"""A fault in the fifth label, which drowns all that follow."""


def test_all_that_is_wrong_by_itself_is_named() -> None:
    faults = {NAMES[4]: 0.3, NAMES[9]: 0.02, NAMES[17]: 0.3}
    assert own_ones(judged(CARRIED, {})) == []
    judgement = judged(CARRIED, faults)
    assert own_ones(judgement) == list(faults)
    assert all(each.ranks[0].origin is Origin.INHERITED for each in judgement.labels[5:9])
    assert label(judgement, NAMES[8]).root == judgement.labels[4].key
    assert label(judgement, NAMES[12]).root == judgement.labels[9].key
    assert judgement.first_divergence is not None and judgement.first_divergence.key.label == NAMES[4]


def test_a_fault_that_the_carried_error_hides_is_wrong() -> None:
    judgement = judged([1e-6] * 24, {NAMES[3]: 0.01})
    found = label(judgement, NAMES[3]).ranks[0]
    assert found.status is Status.DIVERGED and found.origin is Origin.OWN and found.margin is not None
    assert found.margin > 1 and "from golden's values it is off by itself: relative L2 1.0e-02" in found.reason
    assert judgement.exit_code == 1


@pytest.mark.parametrize(
    ("error", "noise", "wrong"),
    [(1e-4, 3e-7, True), (5e-6, 1e-7, False), (1e-4, 1e-5, False), (3e-3, 3e-4, True), (1e-4, 0.0, True)],
)
def test_what_is_out_of_line_counts_below_the_limit(error: float, noise: float, wrong: bool) -> None:
    """The run's own noise says what is usual: beyond the limit for warnings, and 20 times what is usual."""
    judgement = judged([1e-6] * 24, {NAMES[7]: error}, noise)
    assert (NAMES[7] in own_ones(judgement)) == wrong
    assert set(own_ones(judgement)) <= {NAMES[7]}


def test_what_was_not_measured_is_judged_as_ever() -> None:
    judgement = judged(CARRIED, {NAMES[4]: math.nan, NAMES[9]: 0.02})
    assert own_ones(judgement) == [NAMES[4], NAMES[9]], "the first wrong label, whose inputs are right, is own"
    assert label(judgement, NAMES[4]).ranks[0].own is None


def test_noise_that_adds_up_is_no_fault() -> None:
    """Errors beyond the limit, of which none is a label's own."""
    judgement = judged([1e-6] * 20 + [2e-3] * 4, {})
    assert own_ones(judgement) == []
    assert label(judgement, NAMES[20]).status is Status.DIVERGED
    assert label(judgement, NAMES[20]).ranks[0].origin is Origin.INHERITED


def test_a_rule_of_the_policy_counts_for_own_errors() -> None:
    rule = LimitRule(Scope(NAMES[9]), 0.5, 0.5)
    judgement = judged([1e-6] * 24, {NAMES[9]: 0.02, NAMES[10]: 0.02}, policy=replace(Policy(), rules=(rule,)))
    assert own_ones(judgement) == [NAMES[10]]


def test_values_that_are_not_finite() -> None:
    plan = plan_of(["x"])
    broken = X.copy()
    broken[0, 0] = np.nan
    for golden, actual, rel_l2 in ((X, broken, math.inf), (broken, broken, 0.0)):
        evidence = collect_evidence(plan, {(plan.keys[0], 0): stats(golden, actual)}, run_failed=False)
        assert own_errors(evidence)[plan.keys[0]][0].rel_l2 == rel_l2
        found = judge_evidence(add_own_errors(evidence, own_errors(evidence))).labels[0].ranks[0]
        assert found.status is (Status.NONFINITE if rel_l2 else Status.MATCH)


def test_ids_may_not_differ_at_all() -> None:
    ids = np.arange(8).reshape(2, 4)
    plan = plan_of(["ids"], dtype="int64")
    evidence = collect_evidence(plan, {(plan.keys[0], 0): stats(ids, ids)}, run_failed=False)
    own = {plan.keys[0]: {0: OwnError(1e-9, 1e-9, 1e-9, 1.0, 2)}}
    found = judge_evidence(add_own_errors(evidence, own)).labels[0].ranks[0]
    assert found.status is Status.DIVERGED and found.origin is Origin.OWN


@pytest.mark.parametrize(
    ("error", "usual", "dtype", "rows", "wrong"),
    [
        (0.02, 0.0027, "bfloat16", 32, True),
        (0.02, 0.0, "bfloat16", 32, True),  # most layers are equal bit by bit
        (0.02, 0.005, "bfloat16", 32, False),  # not five times what is usual
        (0.007, 0.0005, "bfloat16", 32, False),  # within the step of the type
        (0.02, 0.0027, "bfloat16", 1, False),  # one row says little
        (0.003, 0.0003, "float16", 32, True),
        (5e-6, 1e-7, "float32", 32, False),  # its limits leave room for what is usual of the type
    ],
)
def test_half_precision_is_held_against_its_kind(
    error: float, usual: float, dtype: str, rows: int, wrong: bool
) -> None:
    """The same code in other layers says what is usual; of it in two layers alone nothing is known."""
    warn, fail = Policy().limits[dtype]
    for layers, due in ((8, wrong), (2, False)):
        measured = []
        for layer in range(layers):
            own = error if layer == 1 else usual
            key = LabelKey(0, f"layers.{layer}.mlp", 0)
            limits = Limits(warn, fail, f"{dtype} table", rows=2.0, dtype=dtype)
            found = OwnError(own, own, own, own, rows)
            measured.append(Measured((key, 0), found, limits, ("layers.*.mlp", 0), str(layer)))
        verdicts = judge_own_errors(measured)
        assert [key.label for (key, _), each in verdicts.items() if each.status is Status.DIVERGED] == (
            ["layers.1.mlp"] if due else []
        )

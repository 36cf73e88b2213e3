"""What a rule of the policy tolerates or allows explains what follows, and is shown as what it is."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Excuse, LimitRule, Policy, Scope
from aclcmp.orchestrator.report.text.terminal import print_report
from tests.judge.series import Both, evidence_on, first, judge_on, verdict_on, with_error, wrong

X = np.random.default_rng(6).standard_normal((16, 64)).astype(np.float32)


def layers(errors: dict[str, float]) -> dict[str, Both]:
    return {
        name: (X, with_error(X, error, seed).astype(np.float32)) for seed, (name, error) in enumerate(errors.items())
    }


ACT = {"layers.1.out": 1e-6, "layers.2.act": 0.02, "layers.2.out": 0.01, "layers.3.out": 0.008}
TOLERATED = Policy(rules=(LimitRule(Scope("layers.2.act"), 0.01, 0.05),))
ALLOWED = Policy(allow=(Excuse(Scope("layers.2.act"), "another activation"),))


def printed(judgement: Judgement, width: int = 140) -> str:
    out = io.StringIO()
    print_report(Report(None, "x", judgement, Policy().table(), ()), Console(file=out, width=width, highlight=False))
    return out.getvalue()


def row(text: str, name: str) -> str:
    (found,) = (line for line in text.splitlines() if line.split()[:1] == [name])
    return found


def roots(judgement: Judgement) -> set[str]:
    return {label.root.label for label in judgement.labels if label.root}


def test_what_a_tolerated_label_explains_is_not_own() -> None:
    """The error of layers.2.out is smaller than that of layers.2.act, which the policy lets pass."""
    found = judge_on(layers(ACT), TOLERATED)
    assert verdict_on(found, "layers.2.act").status is Status.DRIFT
    assert wrong(found) == {"layers.2.out": Origin.INHERITED, "layers.3.out": Origin.INHERITED}
    assert roots(found) == {"layers.2.act"}
    assert judge_on(layers(ACT), replace(TOLERATED, fail_on=FailOn.OWN)).exit_code is ExitCode.MATCH


def test_what_a_tolerated_label_does_not_explain_is_own() -> None:
    found = judge_on(layers({**ACT, "layers.3.out": 0.4}), TOLERATED)
    assert wrong(found)["layers.3.out"] is Origin.OWN
    assert judge_on(layers({**ACT, "layers.3.out": 0.4}), replace(TOLERATED, fail_on=FailOn.OWN)).exit_code == 1


def test_a_rule_about_a_label_that_needs_none_tolerates_nothing() -> None:
    """Its error is within the limits that the rule replaces: it explains no error of another."""
    found = judge_on(layers({**ACT, "layers.2.act": 1e-6}), TOLERATED)
    assert wrong(found) == {"layers.2.out": Origin.OWN, "layers.3.out": Origin.INHERITED}


def test_a_rule_that_is_stricter_tolerates_nothing() -> None:
    strict = Policy(rules=(LimitRule(Scope("layers.1.out"), 1e-9, 1e-7),))
    found = judge_on(layers(ACT), strict)
    assert wrong(found)["layers.1.out"] is Origin.OWN and wrong(found)["layers.2.act"] is Origin.OWN


def test_a_tolerated_label_that_a_label_does_not_name_explains_nothing_of_it() -> None:
    labels, named = layers(ACT), {"layers.2.out": ("layers.1.out",), "layers.3.out": ("layers.2.act",)}
    found = judge_on(labels, TOLERATED, named)
    assert wrong(found) == {"layers.2.out": Origin.OWN, "layers.3.out": Origin.INHERITED}


def test_equal_bits_under_a_rule_tolerate_nothing() -> None:
    labels = layers(ACT)
    found = judge_on({**labels, "layers.2.act": (X, X.copy())}, TOLERATED)
    assert wrong(found)["layers.2.out"] is Origin.OWN


def test_from_what_the_headline_inherits_is_told() -> None:
    text = printed(judge_on(layers(ACT), TOLERATED))
    assert "First divergence: layers.2.out" in text
    assert "It inherits from layers.2.act, which the policy lets pass." in text


def test_what_is_allowed_is_shown_as_allowed() -> None:
    only = {name: error for name, error in ACT.items() if name in ("layers.1.out", "layers.2.act")}
    found = judge_on(layers({**only, "layers.3.out": 1e-6}), ALLOWED)
    assert found.exit_code is ExitCode.MATCH and first(found) is None
    text = printed(found)
    assert "○" in row(text, "layers.2.act") and "allowed" in row(text, "layers.2.act")
    assert "✗" not in text and "○ allowed" in text
    assert "Allowed to differ by the policy: layers.2.act: another activation." in text
    assert text.rstrip().splitlines()[-1] == "It passes: nothing else diverged."


def test_a_policy_that_ignores_everything_is_not_green() -> None:
    found = judge_on(layers({"layers.2.act": 0.02}), Policy(ignore=(Excuse(Scope("**"), "not ported"),)))
    assert found.exit_code is ExitCode.INCOMPLETE
    assert printed(found).rstrip().splitlines()[-1] == "Nothing is left that counts, so the verdict is incomplete."


@pytest.mark.parametrize("policy", [Policy(), replace(ALLOWED, allow=(Excuse(Scope("layers.2.act"), "", up_to=1e-3),))])
def test_what_is_not_allowed_is_shown_as_wrong(policy: Policy) -> None:
    text = printed(judge_on(layers({"layers.1.out": 1e-6, "layers.2.act": 0.02}), policy))
    assert "✗" in row(text, "layers.2.act") and "allowed" not in text and "It passes" not in text


def test_what_inherits_from_an_allowed_label_is_inherited_and_its_cause_told() -> None:
    found = judge_on(layers(ACT), ALLOWED)
    assert found.exit_code is ExitCode.DIVERGED and first(found) == "layers.2.out"
    assert verdict_on(found, "layers.2.out").origin is Origin.INHERITED
    text = printed(found)
    assert "✗" in row(text, "layers.2.out") and "It passes" not in text
    assert "It inherits from layers.2.act, which the policy lets pass." in text
    assert judge_on(layers(ACT), replace(ALLOWED, fail_on=FailOn.OWN)).exit_code is ExitCode.MATCH


def test_ties_are_not_what_the_policy_lets_pass() -> None:
    """What inherits from ids that flipped in a tie, and is too much to drift, says so."""
    labels = layers({"scores": 1e-6, "ids": 0.0, "layers.0.out": 0.3, "layers.1.out": 0.3})
    ids = np.arange(16)
    flipped = ids.copy()
    flipped[3] += 100
    known = evidence_on({**labels, "ids": (ids, flipped)})
    tied = [
        replace(each, ranks=(replace(each.ranks[0], ties=1),)) if each.key.label == "ids" else each
        for each in known.labels
    ]
    found = judge_evidence(replace(known, labels=tuple(tied)))
    assert first(found) == "layers.0.out" and verdict_on(found, "layers.0.out").origin is Origin.INHERITED
    text = printed(found)
    assert "which the policy lets pass" not in text and "It inherits from ids, of which ties flipped." in text

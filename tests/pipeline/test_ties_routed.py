"""Experts that flip within the noise of a router's scores, in every order of a gate's results, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.compare.tie_check import count_ties, scores_fit
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.pipeline.ties import add_ties, tie_questions
from tests.compare.diagnosis.test_second_look import Stored
from tests.judge.series import Array, Both, stats_of, verdict_on, with_error, wrong
from tests.judge.test_judge import FACTS

TOKENS, EXPERTS, CHOSEN, WIDE = 40, 16, 2, 32
F32 = np.dtype(np.float32)
NOISE = 1e-5
TIED = [3, 17]
"""Tokens of which the last expert that is chosen and the first that is not are as good as equal."""


def answered(labels: dict[str, Both], folder: Path, inputs: dict[str, tuple[str, ...]] | None = None) -> Judgement:
    """Compare and judge stored tensors, ties asked about as the commands do it."""
    stored, planned = Stored(folder / "tensors"), []
    outcomes: Outcomes = {}
    for name, (golden, actual) in labels.items():
        key, region = LabelKey(0, name, 0), Region.whole(golden.shape)
        sources = [stored.source(side, side.dtype.name) for side in (golden, actual)]
        facts = replace(FACTS, inputs=(inputs or {}).get(name, ()))
        pair = Pair(key, 0, sources[0], region, sources[1], region, golden.shape, region, "same shape")
        planned.append(LabelPlan(key, {0: Sides(facts, facts)}, (pair,)))
        outcomes[key, 0] = stats_of(golden, actual)
    plan = Plan(tuple(planned), {each.key: level_of(each.key.label, "", "") for each in planned}, (), 0, ())
    evidence = collect_evidence(plan, outcomes, run_failed=False)
    questions = tie_questions(plan, judge_evidence(evidence))
    return judge_evidence(add_ties(evidence, {(each.ids.key, 0): count_ties(each) for each in questions}))


def chosen(scores: npt.NDArray[np.float64]) -> tuple[Array, Array]:
    """Weights and ids of the experts with the largest scores."""
    ids = np.argsort(-scores, axis=-1, kind="stable")[:, :CHOSEN]
    weights = np.exp(np.take_along_axis(scores, ids, -1))
    return (weights / weights.sum(-1, keepdims=True)).astype(F32), ids.astype(np.int64)


def gate(*, flip: bool = True) -> tuple[dict[str, Both], npt.NDArray[np.bool_]]:
    """What a router returns on both sides, and which tokens go to other experts."""
    random = np.random.default_rng(2)
    scores = random.standard_normal((TOKENS, EXPERTS))
    for row in TIED if flip else ():
        order = np.argsort(-scores[row])
        scores[row, order[CHOSEN]] = scores[row, order[CHOSEN - 1]] - NOISE / 4
    noisy = scores + NOISE * random.uniform(-0.5, 0.5, scores.shape)
    for row in TIED if flip else ():
        order = np.argsort(-scores[row])
        noisy[row, order[CHOSEN]] = scores[row, order[CHOSEN - 1]] + NOISE
    (weights, ids), (others, flipped) = chosen(scores), chosen(noisy)
    labels = {
        "layers.0.gate.scores": (scores.astype(F32), noisy.astype(F32)),
        "layers.0.gate.weights": (weights, others),
        "layers.0.gate.ids": (ids, flipped),
    }
    return labels, (ids != flipped).any(-1)


def experts(flipped: npt.NDArray[np.bool_], seed: int = 4, error: float = 1e-6) -> Both:
    """What the experts make of the tokens: of those that went elsewhere something else."""
    golden = np.random.default_rng(seed).standard_normal((TOKENS, WIDE)).astype(F32)
    actual = with_error(golden, error, seed)
    actual[flipped] = np.random.default_rng(seed + 1).standard_normal((int(flipped.sum()), WIDE))
    return golden, actual.astype(F32)


@pytest.mark.parametrize("order", list(permutations(["scores", "weights", "ids"])))
def test_ties_are_looked_for_in_the_scores(order: Sequence[str], tmp_path: Path) -> None:
    """As transformers' gates return them: scores [T, E], weights [T, k], ids [T, k]."""
    labels, flipped = gate()
    assert np.flatnonzero(flipped).tolist() == TIED
    found = answered({f"layers.0.gate.{name}": labels[f"layers.0.gate.{name}"] for name in order}, tmp_path)
    ids = verdict_on(found, "layers.0.gate.ids")
    if order.index("scores") < order.index("ids"):
        assert ids.status is Status.DRIFT and "2 of 80 values differ, all of them ties" in ids.reason
        assert found.exit_code is ExitCode.MATCH
    else:
        assert ids.status is Status.DIVERGED, "what comes later is not what they were chosen by"


def test_named_scores_are_taken_though_others_lie_between(tmp_path: Path) -> None:
    labels, _ = gate()
    other = np.random.default_rng(0).standard_normal((TOKENS, EXPERTS)).astype(F32)
    between = {"layers.0.gate.bias": (other, other)}
    given = {**dict(list(labels.items())[:2]), **between, "layers.0.gate.ids": labels["layers.0.gate.ids"]}
    named: dict[str, tuple[str, ...]] = {"layers.0.gate.ids": ("layers.0.gate.scores",)}
    assert answered(given, tmp_path, named).exit_code is ExitCode.MATCH


@pytest.mark.parametrize("row", [0, 3])
def test_an_expert_that_is_none_of_the_best_is_wrong(row: int, tmp_path: Path) -> None:
    labels, _ = gate()
    golden, actual = labels["layers.0.gate.ids"]
    actual = actual.copy()
    actual[row, 1] = np.argmin(labels["layers.0.gate.scores"][0][row])
    found = answered({**labels, "layers.0.gate.ids": (golden, actual)}, tmp_path)
    ids = verdict_on(found, "layers.0.gate.ids")
    assert ids.status is Status.DIVERGED and ids.origin is Origin.OWN


def test_the_two_experts_of_a_token_exchanged_is_no_tie(tmp_path: Path) -> None:
    """Their scores are far apart: a sort in the wrong direction."""
    labels, _ = gate(flip=False)
    golden, _ = labels["layers.0.gate.ids"]
    found = answered({**labels, "layers.0.gate.ids": (golden, golden[:, ::-1].copy())}, tmp_path)
    assert verdict_on(found, "layers.0.gate.ids").status is Status.DIVERGED


def test_tokens_that_went_elsewhere_drift(tmp_path: Path) -> None:
    """And so does what follows, of which they are single rows: nothing is inherited without a cause."""
    labels, flipped = gate()
    labels["layers.0.mlp"] = experts(flipped)
    for layer in range(1, 4):
        labels[f"layers.{layer}"] = experts(flipped, seed=layer + 10, error=1e-6 * (layer + 1))
    found = answered(labels, tmp_path)
    assert found.exit_code is ExitCode.MATCH and wrong(found) == {}
    for name in ("layers.0.mlp", "layers.3"):
        verdict = verdict_on(found, name)
        assert verdict.status is Status.DRIFT and verdict.origin is None
        assert "its worst rows follow from the ties of layers.0.gate.ids" in verdict.reason


def test_the_same_rows_are_wrong_without_a_tie(tmp_path: Path) -> None:
    labels, flipped = gate(flip=False)
    assert not flipped.any()
    flipped[TIED] = True
    labels["layers.0.mlp"] = experts(flipped)
    assert wrong(answered(labels, tmp_path)) == {"layers.0.mlp": Origin.OWN}


def test_rows_in_the_order_of_their_experts_drift_where_what_follows_is_right(tmp_path: Path) -> None:
    """A flip moves all rows behind it; put back in the order of tokens only the flipped ones differ."""
    labels, _ = gate()
    rows, others = np.random.default_rng(8).standard_normal((2, TOKENS, WIDE)).astype(F32)
    labels["layers.0.permuted"] = rows, np.roll(rows, 1, 0)
    labels["layers.0.mlp"] = others, with_error(others, 1e-6).astype(F32)
    found = answered(labels, tmp_path)
    permuted = verdict_on(found, "layers.0.permuted")
    assert permuted.status is Status.DRIFT and "the label after it is right, so it follows" in permuted.reason
    assert found.exit_code is ExitCode.MATCH


def test_what_is_wrong_in_most_rows_and_stays_so_is_no_tie(tmp_path: Path) -> None:
    labels, flipped = gate()
    labels["layers.0.mlp"] = experts(flipped, error=0.3)
    labels["layers.1"] = experts(flipped, seed=9, error=0.3)
    found = answered(labels, tmp_path)
    assert found.exit_code is ExitCode.DIVERGED
    assert wrong(found).keys() == {"layers.0.mlp", "layers.1"}
    assert found.first_divergence is not None and found.first_divergence.key.label == "layers.0.mlp"


def test_ties_excuse_nothing_that_came_before_them(tmp_path: Path) -> None:
    labels, flipped = gate()
    found = answered({"layers.0.attn": experts(flipped), **labels, "layers.0.mlp": experts(flipped, 6)}, tmp_path)
    assert wrong(found)["layers.0.attn"] is Origin.OWN


def test_of_as_many_as_are_chosen_no_places_are_known() -> None:
    assert scores_fit((40, 2), (40, 16)) and scores_fit((40,), (40, 16)) and scores_fit((40, 2), (40, 2, 16))
    assert not scores_fit((40, 2), (40, 2)) and not scores_fit((40, 4), (40, 2)) and not scores_fit((40, 2), (41, 16))


def test_the_next_layers_choices_follow_from_a_tie_too(tmp_path: Path) -> None:
    """Tokens that went elsewhere have other scores from then on, and other experts, which are no ties."""
    labels, flipped = gate()
    labels["layers.0.mlp"] = experts(flipped)
    random = np.random.default_rng(11)
    for layer in (1, 2):
        scores = random.standard_normal((TOKENS, EXPERTS))
        noisy = scores + 1e-7 * random.standard_normal(scores.shape)
        noisy[flipped] = random.standard_normal((int(flipped.sum()), EXPERTS))
        (weights, ids), (others, chosen_now) = chosen(scores), chosen(noisy)
        labels[f"layers.{layer}.gate.scores"] = scores.astype(F32), noisy.astype(F32)
        labels[f"layers.{layer}.gate.weights"] = weights, others
        labels[f"layers.{layer}.gate.ids"] = ids, chosen_now
        labels[f"layers.{layer}.mlp"] = experts(flipped, layer + 20)
    found = answered(labels, tmp_path)
    assert found.exit_code is ExitCode.MATCH and wrong(found) == {}
    later = verdict_on(found, "layers.2.gate.ids")
    assert later.status is Status.DRIFT and "follow from the ties of layers.0.gate.ids" in later.reason
    golden, actual = labels["layers.1.gate.ids"]
    labels["layers.1.gate.ids"] = golden, (actual + 1) % EXPERTS
    assert wrong(answered(labels, tmp_path)).keys() == {"layers.1.gate.ids"}, "all of them, though few went elsewhere"

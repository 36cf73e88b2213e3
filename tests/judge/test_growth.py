"""Errors that jump beside their history, those that trained models have, and which label is in the headline."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judged
from aclcmp.orchestrator.judge.policy import Excuse, JumpRule, Policy, Scope
from aclcmp.orchestrator.judge.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.plan.regions import LabelKey
from aclcmp.orchestrator.report.model import Report
from aclcmp.orchestrator.report.terminal import print_report
from tests.judge.series import BF16, Both, evidence_on, first, judged_on, of, off, wrong

F32 = np.dtype(np.float32)
X = np.random.default_rng(6).standard_normal((16, 64))
LAYERS = 30
MASSIVE = range(11, 28)
"""Layers in which one channel of token 0 carries nearly all energy, as in SmolLM2: 24,926 beside norms of 145."""


def layers(errors: Sequence[float], name: str = "layers.{}.mlp") -> dict[str, Both]:
    """Layers in float32 of which all rows are off by these errors."""
    golden = X.astype(F32)
    return {name.format(n): (golden, off(golden, error, n).astype(F32)) for n, error in enumerate(errors)}


def residual(rows: Sequence[Sequence[float]], dtype: np.dtype = BF16) -> dict[str, Both]:
    """What layers of a trained model return, with these errors of their rows, relative to each row."""
    labels = {}
    for layer, errors in enumerate(rows):
        random = np.random.default_rng(layer)
        golden = random.standard_normal((16, 64)) * 145 / 8
        if layer in MASSIVE:
            golden[0, 7] = 24_926
        exact = golden.astype(dtype)
        actual = off(exact, 1.0, layer) - exact.astype(np.float64)
        labels[f"layers.{layer}"] = exact, (exact + actual * np.array(errors)[:, None]).astype(dtype)
    return labels


def usual(layer: int) -> list[float]:
    """Errors of half precision: all rows the same, but that of the massive token smaller as long as it is massive."""
    steady = 6e-3 * 1.02**layer
    return [1e-3 if layer in MASSIVE else steady, *[steady] * 15]


def test_massive_activations_are_no_jump_where_they_end() -> None:
    """The relative error of the whole falls to a tenth and climbs back; the median row's is steady."""
    found = judged_on(residual([usual(layer) for layer in range(LAYERS)]))
    whole = [v.metrics.rel_l2 for label in found.labels for v in label.ranks if v.metrics]
    assert whole[28] > 4 * whole[27], "as the old rule saw it"
    assert found.exit_code is ExitCode.MATCH and {label.status for label in found.labels} == {Status.MATCH}


@pytest.mark.parametrize("layer", [5, 10, 20, 28, 29])
def test_a_median_row_that_jumps_is_wrong_wherever_that_is(layer: int) -> None:
    errors = [usual(n) for n in range(LAYERS)]
    errors[layer] = [each * 4 for each in errors[layer]]
    found = judged_on(residual(errors))
    assert first(found) == f"layers.{layer}"
    limits = of(found, f"layers.{layer}").limits
    assert limits is not None and 4 * errors[0][1] < limits.warn, "it is not even near its limit"


@pytest.mark.parametrize(("times", "is_wrong"), [(1.8, False), (3.0, True), (6.0, True)])
def test_how_much_is_a_jump(times: float, is_wrong: bool) -> None:
    found = judged_on(layers([1e-6 * 1.02**n for n in range(10)] + [1e-6 * times * 1.2]))
    assert wrong(found) == ({"layers.10.mlp": Origin.OWN} if is_wrong else {})


@pytest.mark.parametrize(("times", "is_wrong"), [(2.5, False), (10.0, True)])
def test_a_single_row_may_vary_more(times: float, is_wrong: bool) -> None:
    labels = layers([1e-6] * 11)
    golden, actual = labels["layers.10.mlp"]
    actual = actual.copy()
    actual[3] = golden[3] + (actual[3] - golden[3]) * times
    assert wrong(judged_on({**labels, "layers.10.mlp": (golden, actual)})) == (
        {"layers.10.mlp": Origin.OWN} if is_wrong else {}
    )


def test_what_exceeds_its_kind_but_not_other_labels_is_no_jump() -> None:
    """A label of a quiet kind that is as wrong as all others around it."""
    labels: dict[str, Both] = {}
    quiet, loud = layers([1e-6] * 9 + [1e-5], "layers.{}.norm"), layers([1e-5] * 10, "layers.{}.mlp")
    for one, other in zip(quiet.items(), loud.items(), strict=True):
        labels |= dict([other, one])
    assert wrong(judged_on(labels)) == {}


def test_the_first_layers_have_no_history() -> None:
    assert wrong(judged_on(layers([1e-7, 1e-6, 4e-6]))) == {}


@given(
    st.lists(st.floats(0.8, 1.25), min_size=5, max_size=14),
    st.floats(1.0, 1.06),
    st.floats(-6.5, -5.5),
    st.integers(0, 9),
)
def test_errors_that_grow_slowly_and_waver_are_no_jump_and_at_once_are_one(
    waver: list[float], growth: float, start: float, seed: int
) -> None:
    errors = [10**start * growth**n * each for n, each in enumerate(waver)]
    assert wrong(judged_on(layers(errors))) == {}
    last = len(errors)
    assert wrong(judged_on(layers([*errors, max(errors) * 6]))) == {f"layers.{last}.mlp": Origin.OWN}


def test_rules_that_are_off_find_no_jump() -> None:
    assert wrong(judged_on(layers([1e-6] * 9 + [1e-5]), Policy(jump=JumpRule(on=False)))) == {}


JUMPS = [*[2e-6] * 8, 1.2e-5]


@given(st.floats(4.0, 5000.0).filter(lambda times: not 45 < times < 55))
def test_what_is_below_its_limit_never_outranks_what_is_fifty_times_worse(times: float) -> None:
    labels = {**layers(JUMPS), **layers([1.2e-5 * times] * 2, "tail.{}.x")}
    found = judged_on(labels)
    worse = times > 50 and of(found, "tail.0.x").status is Status.DIVERGED
    assert first(found) == ("tail.0.x" if worse else "layers.8.mlp")
    status = of(found, "layers.8.mlp")
    assert (status.status is Status.DRIFT, status.origin) == (worse, None if worse else Origin.OWN)
    if worse:
        assert "but that of tail.0.x more than 50 times larger" in status.reason
        assert of(found, "tail.0.x").origin is Origin.OWN, "nothing before it is wrong"


def test_what_is_above_its_limit_keeps_its_place() -> None:
    labels = {**layers([*JUMPS[:-1], 2e-3]), **layers([0.9], "tail.{}.x")}
    assert first(judged_on(labels)) == "layers.8.mlp"


def test_neither_another_task_nor_what_is_ignored_outranks() -> None:
    labels = {**layers(JUMPS), **layers([0.5], "tail.{}.x")}
    assert first(judged_on(labels, Policy(ignore=(Excuse(Scope("tail.*.x"), "debug"),)))) == "layers.8.mlp"
    known = evidence_on(labels)
    moved = [
        replace(each, key=LabelKey(1, *each.key[1:])) if each.key.label.startswith("tail") else each
        for each in known.labels
    ]
    assert first(judged(replace(known, labels=tuple(moved)))) == "layers.8.mlp"


def test_values_that_are_not_finite_outrank() -> None:
    golden = X.astype(F32)
    broken = golden.copy()
    broken[3] = np.nan
    assert first(judged_on({**layers(JUMPS), "tail": (golden, broken)})) == "tail"


def printed(judgement: Judgement) -> str:
    out = io.StringIO()
    print_report(Report(None, "x", judgement, Policy().table(), ()), Console(file=out, width=140, highlight=False), ())
    return out.getvalue()


@pytest.mark.parametrize("tail", [0.5, 1e-4])
def test_headline_and_table_agree(tail: float) -> None:
    found = judged_on({**layers(JUMPS), **layers([tail] * 3, "tail.{}.x")})
    told = found.first_divergence
    assert told is not None
    text = printed(found)
    (row,) = (line for line in text.splitlines() if line.split()[:1] == [told.key.label])
    assert row.split()[-2:] == ["diverged", "own"] and f"First divergence: {told.key.label}" in text
    own = [label.key.label for label in found.labels if label.ranks[0].origin is Origin.OWN]
    assert own == [told.key.label] and "Also wrong by itself" not in text
    before = [label.status for label in found.labels[: found.labels.index(next(_headlined(found)))]]
    assert not {Status.DIVERGED, Status.NONFINITE} & set(before)


def _headlined(judgement: Judgement):
    return (
        each
        for each in judgement.labels
        if judgement.first_divergence is not None and each.key == judgement.first_divergence.key
    )

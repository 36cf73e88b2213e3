"""Errors that jump beside their history, those that trained models have, and which label is in the headline."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Excuse, JumpRule, LimitRule, Policy, Scope
from aclcmp.orchestrator.pipeline.stored_reports import evidence_of_report
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.text.terminal import print_report
from tests.judge.series import BF16, POLICY, Both, evidence_on, first, judge_on, verdict_on, with_error, wrong

F32 = np.dtype(np.float32)
X = np.random.default_rng(6).standard_normal((16, 64))
LAYERS = 30
MASSIVE = range(11, 28)
"""Layers in which one channel of token 0 carries nearly all energy, as in SmolLM2: 24,926 beside norms of 145."""


def layers(errors: Sequence[float], name: str = "layers.{}.mlp") -> dict[str, Both]:
    """Layers in float32 of which all rows are off by these errors."""
    golden = X.astype(F32)
    return {name.format(n): (golden, with_error(golden, error, n).astype(F32)) for n, error in enumerate(errors)}


def residual(rows: Sequence[Sequence[float]], dtype: np.dtype = BF16) -> dict[str, Both]:
    """What layers of a trained model return, with these errors of their rows, relative to each row."""
    labels = {}
    for layer, errors in enumerate(rows):
        random = np.random.default_rng(layer)
        golden = random.standard_normal((16, 64)) * 145 / 8
        if layer in MASSIVE:
            golden[0, 7] = 24_926
        exact = golden.astype(dtype)
        actual = with_error(exact, 1.0, layer) - exact.astype(np.float64)
        labels[f"layers.{layer}"] = exact, (exact + actual * np.array(errors)[:, None]).astype(dtype)
    return labels


def usual(layer: int) -> list[float]:
    """Errors of half precision: all rows the same, but that of the massive token smaller as long as it is massive."""
    steady = 6e-3 * 1.02**layer
    return [1e-3 if layer in MASSIVE else steady, *[steady] * 15]


def test_massive_activations_are_no_jump_where_they_end() -> None:
    """The relative error of the whole falls to a tenth and climbs back; the median row's is steady."""
    found = judge_on(residual([usual(layer) for layer in range(LAYERS)]))
    whole = [v.metrics.rel_l2 for label in found.labels for v in label.ranks if v.metrics]
    assert whole[28] > 4 * whole[27], "as the old rule saw it"
    assert found.exit_code is ExitCode.MATCH and {label.status for label in found.labels} == {Status.MATCH}


@pytest.mark.parametrize("layer", [5, 10, 20, 28, 29])
def test_a_median_row_that_jumps_is_wrong_wherever_that_is(layer: int) -> None:
    errors = [usual(n) for n in range(LAYERS)]
    errors[layer] = [each * 4 for each in errors[layer]]
    found = judge_on(residual(errors))
    assert first(found) == f"layers.{layer}"
    limits = verdict_on(found, f"layers.{layer}").limits
    assert limits is not None and 4 * errors[0][1] < limits.warn, "it is not even near its limit"


@pytest.mark.parametrize(("times", "is_wrong"), [(1.8, False), (3.0, True), (6.0, True)])
def test_how_much_is_a_jump(times: float, is_wrong: bool) -> None:
    found = judge_on(layers([1e-6 * 1.02**n for n in range(10)] + [1e-6 * times * 1.2]))
    assert wrong(found) == ({"layers.10.mlp": Origin.OWN} if is_wrong else {})


@pytest.mark.parametrize(("times", "is_wrong"), [(2.5, False), (10.0, True)])
def test_a_single_row_may_vary_more(times: float, is_wrong: bool) -> None:
    labels = layers([1e-6] * 11)
    golden, actual = labels["layers.10.mlp"]
    actual = actual.copy()
    actual[3] = golden[3] + (actual[3] - golden[3]) * times
    assert wrong(judge_on({**labels, "layers.10.mlp": (golden, actual)})) == (
        {"layers.10.mlp": Origin.OWN} if is_wrong else {}
    )


def test_what_exceeds_its_kind_but_not_other_labels_is_no_jump() -> None:
    """A label of a quiet kind that is as wrong as all others around it."""
    labels: dict[str, Both] = {}
    quiet, loud = layers([1e-6] * 9 + [1e-5], "layers.{}.norm"), layers([1e-5] * 10, "layers.{}.mlp")
    for one, other in zip(quiet.items(), loud.items(), strict=True):
        labels |= dict([other, one])
    assert wrong(judge_on(labels)) == {}


def test_the_first_layers_have_no_history() -> None:
    assert wrong(judge_on(layers([1e-7, 1e-6, 4e-6]))) == {}


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
    assert wrong(judge_on(layers(errors))) == {}
    last = len(errors)
    assert wrong(judge_on(layers([*errors, max(errors) * 6]))) == {f"layers.{last}.mlp": Origin.OWN}


def test_rules_that_are_off_find_no_jump() -> None:
    assert wrong(judge_on(layers([1e-6] * 9 + [1e-5]), Policy(jump=JumpRule(on=False)))) == {}


JUMPS = [*[2e-6] * 8, 1.2e-5]


@given(st.floats(4.0, 5000.0).filter(lambda times: not 45 < times < 55))
def test_what_is_below_its_limit_never_outranks_what_is_fifty_times_worse(times: float) -> None:
    labels = {**layers(JUMPS), **layers([1.2e-5 * times] * 2, "tail.{}.x")}
    found = judge_on(labels)
    worse = times > 50 and verdict_on(found, "tail.0.x").status is Status.DIVERGED
    assert first(found) == ("tail.0.x" if worse else "layers.8.mlp")
    status = verdict_on(found, "layers.8.mlp")
    assert (status.status is Status.DRIFT, status.origin) == (worse, None if worse else Origin.OWN)
    if worse:
        assert "but that of tail.0.x more than 50 times larger" in status.reason
        assert verdict_on(found, "tail.0.x").origin is Origin.OWN, "nothing before it is wrong"


def test_what_is_above_its_limit_keeps_its_place() -> None:
    labels = {**layers([*JUMPS[:-1], 2e-3]), **layers([0.9], "tail.{}.x")}
    assert first(judge_on(labels)) == "layers.8.mlp"


def test_neither_another_task_nor_what_is_ignored_outranks() -> None:
    labels = {**layers(JUMPS), **layers([0.5], "tail.{}.x")}
    assert first(judge_on(labels, Policy(ignore=(Excuse(Scope("tail.*.x"), "debug"),)))) == "layers.8.mlp"
    known = evidence_on(labels)
    moved = [
        replace(each, key=LabelKey(1, *each.key[1:])) if each.key.label.startswith("tail") else each
        for each in known.labels
    ]
    assert first(judge_evidence(replace(known, labels=tuple(moved)))) == "layers.8.mlp"


def test_values_that_are_not_finite_outrank() -> None:
    golden = X.astype(F32)
    broken = golden.copy()
    broken[3] = np.nan
    assert first(judge_on({**layers(JUMPS), "tail": (golden, broken)})) == "tail"


def printed(judgement: Judgement) -> str:
    out = io.StringIO()
    print_report(Report(None, "x", judgement, Policy().table(), ()), Console(file=out, width=140, highlight=False))
    return out.getvalue()


@pytest.mark.parametrize("tail", [0.5, 1e-4])
def test_headline_and_table_agree(tail: float) -> None:
    found = judge_on({**layers(JUMPS), **layers([tail] * 3, "tail.{}.x")})
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


def alternating(errors: Sequence[tuple[float, float]], rows: int = 64) -> dict[str, Both]:
    """Layers of two labels each, a projection and what the layer returns, with these errors of all rows."""
    golden = np.random.default_rng(9).standard_normal((rows, 64)).astype(F32)
    return {
        f"layers.{n}{name}": (golden, with_error(golden, error, 2 * n + place).astype(F32))
        for n, pair in enumerate(errors)
        for place, (name, error) in enumerate(zip((".attn.o_proj", ""), pair, strict=True))
    }


STEADY = [(2e-6, 2.4e-6)] * 8


def test_a_jump_that_what_follows_carries_on_is_one() -> None:
    carried = [*STEADY, (5.6e-6, 6e-6), *[(5e-6, 6e-6)] * 5]
    assert wrong(judge_on(alternating(carried))).keys() >= {"layers.8.attn.o_proj"}
    assert first(judge_on(alternating(carried))) == "layers.8.attn.o_proj"


def test_a_jump_that_nothing_carries_on_is_round_off_of_a_small_part() -> None:
    """A projection whose terms cancel, as for short prompts: beside what it is added to its error is nothing."""
    alone = [*STEADY, (5.6e-6, 2.4e-6), *STEADY]
    found = judge_on(alternating(alone))
    assert found.exit_code is ExitCode.MATCH and verdict_on(found, "layers.8.attn.o_proj").status is Status.MATCH


def test_a_very_large_jump_needs_no_witness() -> None:
    assert first(judge_on(alternating([*STEADY, (9e-6, 2.4e-6), *STEADY]))) == "layers.8.attn.o_proj"


def test_near_the_end_there_is_nothing_to_ask() -> None:
    assert first(judge_on(alternating([*STEADY, (2e-6, 6.6e-6)]))) == "layers.8"


def test_what_was_no_jump_hides_no_later_one() -> None:
    errors = [*STEADY, (5.6e-6, 2.4e-6), *STEADY, (1.2e-5, 1.2e-5), *[(1.2e-5, 1.2e-5)] * 3]
    assert first(judge_on(alternating(errors))) == "layers.17.attn.o_proj"


@pytest.mark.parametrize(("rows", "is_wrong"), [(4, False), (64, True)])
def test_few_rows_must_jump_further(rows: int, is_wrong: bool) -> None:
    carried = [*STEADY, (6.5e-6, 6.5e-6), *[(6.5e-6, 6.5e-6)] * 5]
    assert (first(judge_on(alternating(carried, rows))) is not None) == is_wrong


USUAL = 4.5e-4


def one_row(error: float, behind: float, layer: int = 8) -> dict[str, Both]:
    """All rows are off by `USUAL`, but row 5 of a projection by `error`, and of what follows by `behind`."""
    labels = alternating([(USUAL, USUAL)] * 16)
    for name in list(labels)[2 * layer :]:
        golden, actual = labels[name]
        actual = actual.astype(np.float64)
        exact = golden.astype(np.float64)
        size = error if name == f"layers.{layer}.attn.o_proj" else behind
        actual[5] = exact[5] + (actual[5] - exact[5]) * size / USUAL
        labels[name] = golden, actual.astype(F32)
    return labels


LIMIT = 2 * 5e-4 * np.sqrt(2)
"""Of the worst row of float32 in layer 8."""


@pytest.mark.parametrize(
    ("times", "behind", "status"),
    [
        (1.2, USUAL, Status.DRIFT),  # nothing carries it on
        (1.2, 2.5 * USUAL, Status.DIVERGED),
        (2.0, USUAL, Status.DIVERGED),  # not just beyond
    ],
)
def test_a_row_just_beyond_its_limit_that_nothing_carries_on_drifts(
    times: float, behind: float, status: Status
) -> None:
    found = verdict_on(judge_on(one_row(times * LIMIT, behind)), "layers.8.attn.o_proj")
    assert found.status is status
    assert ("nothing that follows carries it on" in found.reason) == (status is Status.DRIFT)


def test_a_limit_that_the_user_gave_is_kept() -> None:
    rule = LimitRule(Scope("layers.8.attn.o_proj"), 1e-5, LIMIT / 2)
    found = judge_on(one_row(1.2 * LIMIT, USUAL), Policy(rules=(rule,)))
    assert verdict_on(found, "layers.8.attn.o_proj").status is Status.DIVERGED


@pytest.mark.parametrize(("rows", "times"), [(64, 2.0), (128, 2.0), (1024, 2.9)])
def test_the_worst_of_many_rows_may_be_worse(rows: int, times: float) -> None:
    golden = np.random.default_rng(1).standard_normal((rows, 8)).astype(F32)
    limits = verdict_on(judge_on({"x": (golden, with_error(golden, 1e-6).astype(F32))}), "x").limits
    assert limits is not None and limits.rows == pytest.approx(times)


@pytest.mark.parametrize("errors", [[1e-6, 8e-4, 1e-6], [4e-6 if n > 11 else 1e-6 for n in range(20)]])
@pytest.mark.parametrize("with_rows", [True, False])
def test_a_stored_report_is_judged_again_as_before(errors: list[float], with_rows: bool, tmp_path: Path) -> None:
    """Sums by row are not kept of what matches, and are not read where they are not needed: their number is known."""
    found = judge_on(layers(errors))
    assert found.exit_code is ExitCode.DIVERGED
    write_h5(Report(None, "x", found, POLICY.table()), tmp_path / "report.h5")
    again = judge_evidence(evidence_of_report(read_h5(tmp_path / "report.h5", None, with_rows=with_rows)))
    reasons = [[label.ranks[0].reason for label in each.labels] for each in (found, again)]
    assert wrong(again) == wrong(found) and reasons[0] == reasons[1]

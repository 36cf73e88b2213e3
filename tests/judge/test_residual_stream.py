"""Rows are held against the largest norm that their tokens had in the residual stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.errors import ExitCode
from tests.judge.series import BF16, Array, Both, first, judge_on, verdict_on, with_error, wrong

ROWS, WIDE = 12, 64
USUAL = 145.0
"""The norm of the median token."""
EPS = 2.0**-7
ROUNDING = 807 * 5 * EPS
"""That of the massive activation: 0.04 of it, and 0.25 of what is left of the token, which no limit lets pass."""


def stream(norms: dict[int, float], seed: int = 0) -> Array:
    """What a layer returns: each token's vector has the usual norm, or the one given."""
    values = np.random.default_rng(seed).standard_normal((ROWS, WIDE))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    wanted = np.array([norms.get(row, USUAL) for row in range(ROWS)])
    return values * wanted[:, None]


def wrong_by(golden: Array, errors: dict[int, float], seed: int = 1) -> Array:
    """Golden with round-off of bfloat16, and with an error of this norm in some rows."""
    noise = np.random.default_rng(seed).standard_normal((ROWS, WIDE))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    usual = np.linalg.norm(golden, axis=1) * EPS
    return golden + noise * np.array([errors.get(row, usual[row]) for row in range(ROWS)])[:, None]


def both(golden: Array, errors: dict[int, float] | None = None, seed: int = 1) -> Both:
    return golden.astype(BF16), wrong_by(golden, errors or {}, seed).astype(BF16)


def cancelled(row: int, error: float, *, name: str = "layers.{}", small: float = 126.0, massive: int = 8) -> Judgement:
    """Token 0 has a norm of 807 for some layers, then a small one; in the last two layers one row has an error."""
    labels = {}
    for layer in range(massive):
        labels[name.format(layer)] = both(stream({0: 807.0}, layer), {0: ROUNDING}, seed=layer + 50)
    for layer in range(massive, massive + 2):
        labels[name.format(layer)] = both(stream({0: small}, layer), {row: error}, seed=layer + 50)
    return judge_on(labels)


@pytest.mark.parametrize("name", ["layers.{}", "model.layers.{}.out", "h.{}.output", "blocks[{}]"])
def test_a_token_keeps_the_rounding_of_what_it_was(name: str) -> None:
    found = cancelled(0, ROUNDING, name=name)
    assert found.exit_code is ExitCode.MATCH
    last = verdict_on(found, name.format(9))
    assert last.metrics is not None and last.metrics.worst_row < 0.05


def test_an_equally_large_error_of_another_token_is_wrong() -> None:
    found = cancelled(5, ROUNDING)
    assert first(found) == "layers.8" and "(row 5)" in verdict_on(found, "layers.8").reason


def test_what_is_larger_than_the_rounding_of_before_is_wrong() -> None:
    assert first(cancelled(0, 807 * 0.3, small=400.0)) == "layers.8"


@pytest.mark.parametrize("lost", [126.0, 400.0])
def test_a_lost_token_is_wrong_whatever_it_was_before(lost: float) -> None:
    """Zeros instead of the token: an error of 1, though 807 was much more."""
    assert first(cancelled(0, lost * 1.01, small=lost)) == "layers.8"


def test_what_is_no_residual_stream_is_not_remembered() -> None:
    """A large output of one module says nothing of the next one's: its rounding does not stay."""
    found = cancelled(0, ROUNDING, name="layers.{}.mlp")
    assert first(found) == "layers.8.mlp"


def test_modules_behind_the_stream_remember_it_too() -> None:
    labels = {f"layers.{n}": both(stream({0: 807.0}, n), {0: ROUNDING}, seed=n) for n in range(4)}
    labels["layers.4"] = both(stream({0: 126.0}, 4), {0: ROUNDING})
    labels["layers.5.input_norm"] = both(stream({}, 5), {0: USUAL * ROUNDING / 126})
    assert judge_on(labels).exit_code is ExitCode.MATCH
    labels["layers.5.input_norm"] = both(stream({}, 5), {3: USUAL * ROUNDING / 126})
    assert wrong(judge_on(labels)).keys() == {"layers.5.input_norm"}


def test_other_rows_remember_nothing() -> None:
    """A decode step has other tokens than the prompt before it."""
    labels = {f"layers.{n}": both(stream({0: 807.0}, n), {0: ROUNDING}, seed=n) for n in range(4)}
    short = stream({}, 9)[:4]
    labels["layers.4"] = short.astype(BF16), wrong_by(stream({}, 9), {0: ROUNDING})[:4].astype(BF16)
    assert first(judge_on(labels)) == "layers.4"


@given(st.integers(0, ROWS - 1), st.floats(1.0, 2000.0), st.integers(0, 5))
def test_no_history_makes_a_right_row_wrong_or_a_wrong_row_without_one_right(row: int, norm: float, seed: int) -> None:
    other = (row + 1) % ROWS
    labels = {f"layers.{n}": both(stream({row: norm}, n + seed), seed=n + seed) for n in range(4)}
    labels["layers.4"] = both(stream({}, seed + 9))
    assert judge_on(labels).exit_code is ExitCode.MATCH
    labels["layers.4"] = both(stream({}, seed + 9), {other: USUAL * 0.4})
    assert verdict_on(judge_on(labels), "layers.4").status is Status.DIVERGED


def test_a_decoder_does_not_keep_what_its_encoder_was() -> None:
    """Two stacks in one task, as many rows in either: a wrong token of the second is not held against the first."""
    labels = {}
    for stack, size in (("encoder", 500.0), ("decoder", 5.0)):
        for layer in range(6):
            golden = np.random.default_rng(layer).standard_normal((256, WIDE)) * size
            actual = with_error(golden, 6e-3, layer)
            if (stack, layer) == ("decoder", 3):
                actual[40] *= 0.2
            labels[f"{stack}.layers.{layer}"] = golden.astype(BF16), actual.astype(BF16)
    assert list(wrong(judge_on(labels))) == ["decoder.layers.3"]

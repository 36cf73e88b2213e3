"""Values beside zeros that are none, round-off on both sides, and small values that are what a label is about."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.policy import LimitRule, Policy, Scope
from tests.judge.series import BF16, Array, Both, first, judge_on, verdict_on, with_error, wrong

X = np.random.default_rng(5).standard_normal((8, 32))
F32 = np.dtype(np.float32)
DTYPES: list[tuple[npt.DTypeLike, float]] = [(np.float64, 1e-160), (F32, 1e-30), (BF16, 1e-30), (np.float16, 6e-8)]


def beside(scale: float, dtype: npt.DTypeLike = F32, count: int = 4) -> dict[str, Both]:
    """Labels of values of some size, on which both sides agree."""
    values = (X * scale).astype(dtype)
    return {f"before.{n}": (values, values) for n in range(count)}


def status(golden: Array, actual: Array, before: dict[str, Both] | None = None) -> Status:
    return verdict_on(judge_on({**(before or {}), "x": (golden, actual)}), "x").status


@pytest.mark.parametrize(("dtype", "tiny"), DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_values_of_no_size_beside_zeros_are_none(dtype: npt.DTypeLike, tiny: float, scale: float) -> None:
    zeros, few = np.zeros((8, 32), dtype), np.zeros((8, 32), dtype)
    few[3, 4] = tiny
    everywhere = np.full((8, 32), tiny, dtype)
    for actual in (few, everywhere, -everywhere):
        found = judge_on({**beside(scale, dtype), "x": (zeros, actual)})
        verdict = verdict_on(found, "x")
        assert found.exit_code is ExitCode.MATCH and verdict.margin == 0.0
        assert "nothing but round-off on both sides" in verdict.reason


@pytest.mark.parametrize("dtype", [np.float64, F32, BF16, np.float16])
def test_what_is_more_than_a_cancelled_difference_beside_zeros_is_wrong(dtype: npt.DTypeLike) -> None:
    zeros = np.zeros((8, 32), dtype)
    eps = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}[np.dtype(dtype).name]
    assert status(zeros, np.full((8, 32), eps, dtype), beside(1.0, dtype)) is Status.MATCH
    assert status(zeros, np.full((8, 32), 8 * eps, dtype), beside(1.0, dtype)) is Status.DIVERGED
    assert status(zeros, np.full((8, 32), eps, dtype), beside(0.01, dtype)) is Status.DIVERGED


def test_nothing_before_tells_what_is_small() -> None:
    zeros = np.zeros((8, 32), F32)
    assert status(zeros, zeros + F32.type(1e-7)) is Status.DIVERGED


def test_zeros_on_the_actual_side_and_small_values_on_both() -> None:
    tiny, zeros = (X * 1e-30).astype(F32), np.zeros((8, 32), F32)
    for golden, actual in ((tiny, zeros), (tiny, -tiny)):
        assert status(golden, actual, beside(1.0)) is Status.MATCH
        assert status(golden, actual, beside(1e-28)) is Status.DIVERGED, "here they are what is computed"


@pytest.mark.parametrize("scale", [1e-10, 1e-6, 1e-3])
def test_a_signal_of_small_scale_is_compared(scale: float) -> None:
    """A gate that lets little through, a scale of layers at its start: large values before it excuse nothing."""
    golden = (X * scale).astype(F32)
    assert status(golden, with_error(golden, 1e-6).astype(F32), beside(1.0)) is Status.MATCH
    for error in (0.01, 1.0):
        assert status(golden, with_error(golden, error).astype(F32), beside(1.0)) is Status.DIVERGED
    assert status(golden, np.zeros_like(golden), beside(1.0)) is Status.DIVERGED


def test_a_large_value_beside_a_tiny_golden_is_wrong() -> None:
    golden = (X * 1e-30).astype(F32)
    assert status(golden, X.astype(F32), beside(1.0)) is Status.DIVERGED


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_a_model_of_any_scale_is_compared(scale: float) -> None:
    golden = (X * scale).astype(F32)
    assert status(golden, with_error(golden, 0.01).astype(F32), beside(scale)) is Status.DIVERGED
    assert status(golden, with_error(golden, 1e-6).astype(F32), beside(scale)) is Status.MATCH


@given(st.floats(-20, 20), st.floats(-6, 6), st.sampled_from([0.02, 0.3, 0.9]))
def test_what_is_larger_than_round_off_is_never_nothing(size: float, scale: float, error: float) -> None:
    """Golden of float32 has digits down to the square of the least error, beside the values before it."""
    golden = (X * 10.0**size).astype(F32)
    found = status(golden, with_error(golden, error).astype(F32), beside(10.0**scale))
    nothing = np.abs(golden).max() * (1 + 4 * error) < 2.0**-48 * 10.0**scale
    certain = np.abs(golden).max() > 2.0**-44 * 10.0**scale
    assert found is (Status.MATCH if nothing else Status.DIVERGED) or not (nothing or certain)


def test_not_a_number_beside_zeros_is_no_round_off() -> None:
    zeros = np.zeros((8, 32), F32)
    broken = zeros + F32.type(1e-30)
    broken[0, 0] = np.nan
    assert status(zeros, broken, beside(1.0)) is Status.NONFINITE


def test_one_row_of_zeros_among_others() -> None:
    golden = X.astype(F32)
    golden[2] = 0
    actual = golden.copy()
    actual[2] = 1e-30
    assert status(golden, actual) is Status.MATCH
    actual[2] = 0.01
    assert status(golden, actual) is Status.DIVERGED


def test_what_is_nothing_explains_nothing() -> None:
    zeros = np.zeros((8, 32), F32)
    labels = {
        **beside(1.0),
        "bias": (zeros, zeros + F32.type(1e-30)),
        "x": (X.astype(F32), with_error(X, 0.3).astype(F32)),
    }
    assert wrong(judge_on(labels)) == {"x": Origin.OWN}
    policy = Policy(rules=(LimitRule(Scope("bias"), 0.1, 0.5),))
    assert wrong(judge_on(labels, policy)) == {"x": Origin.OWN}, "nor does it where a rule is about it"


def test_what_is_nothing_is_no_largest_error_so_far() -> None:
    """Round-off on both sides is off by 1.4, relative to itself: what jumps later jumps all the same."""
    tiny = np.full((8, 32), 1e-30, F32) * X.astype(F32)
    labels = {**beside(1.0), "noise": (tiny, -tiny), **steady([1e-5] * 7 + [1e-4])}
    assert first(judge_on(labels)) == "layers.7"


def steady(errors: list[float], name: str = "layers.{}") -> dict[str, Both]:
    """Layers of which all rows are off by these errors."""
    golden = X.astype(F32)
    return {name.format(n): (golden, with_error(golden, error, n).astype(F32)) for n, error in enumerate(errors)}


def test_zeros_in_every_layer_are_no_jump() -> None:
    zeros = np.zeros((8, 32), F32)
    labels = beside(1.0)
    for layer in range(10):
        labels[f"layers.{layer}.bias"] = zeros, zeros + F32.type(1e-30 if layer == 9 else 1e-35)
    found = judge_on(labels)
    assert found.exit_code is ExitCode.MATCH and first(found) is None

"""Single values, limits and integers: what is told of each, and what beside it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD
from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.compare.diagnosis.rounding import rounder
from aclcmp.orchestrator.core.diagnosis import Fit

BF16 = rounder("bfloat16")


def told(x: np.ndarray, y: np.ndarray, dtype: str = "float32", **more) -> list[Fit]:
    """What would be a hint."""
    return [fit for fit in fits_of(x, y, dtype, dtype, **more)[:1] if fit.explained >= GOOD]


def kinds(x: np.ndarray, y: np.ndarray, dtype: str = "float32", **more) -> list[str]:
    return [fit.kind for fit in told(x, y, dtype, **more)]


def trained(seed: int = 0, massive: float = 5000.0) -> np.ndarray:
    """Activations whose first token has massive values in two channels, as in trained models; bfloat16."""
    x = np.random.default_rng(seed).standard_normal((72, 256))
    x[0, 40], x[0, 171] = massive, -massive / 2
    return BF16(x)


def test_one_clamped_massive_value_is_told_with_its_place() -> None:
    x = trained()
    y = np.where(x == 4992, 448.0, x)
    (fit,) = told(x, y)
    assert fit.kind == "one value"
    assert fit.words.startswith("one value alone (row 0, channel 40) is another, 448 where golden has 4992: clamped")
    (fit,) = told(x, y, cut=True)
    assert fit.words.startswith("one value alone is another, 448")  # rows of a part have other numbers


def test_one_clamped_value_is_told_beside_round_off() -> None:
    x = trained()
    y = BF16(np.where(x == 4992, 448.0, x) * (1 + 3e-3 * np.random.default_rng(1).standard_normal(x.shape)))
    for noise in (0.0, 4e-3):
        assert kinds(x, y, "bfloat16", noise=noise) == ["one value"]


def test_a_larger_value_is_no_clamp() -> None:
    x = trained()
    y = x.copy()
    y[30, 7] = 7e4
    (fit,) = told(x, y)
    assert fit.kind == "one value" and "clamped" not in fit.words and "a bit turned?" in fit.words


def test_several_clamped_values_are_few_values() -> None:
    x = trained()
    (fit,) = told(x, np.clip(x, -448.0, 448.0))
    assert fit.kind == "few values" and fit.words.startswith("2 values alone are others, the worst 448 where golden")
    x[5, :2] = 3000.0, -3000.0
    y = x.copy()
    y[np.abs(x) > 400] *= 0.1
    assert kinds(x, y) == ["few values"]


def test_a_clamp_of_many_values_is_saturation() -> None:
    x = np.random.default_rng(0).standard_normal((64, 96))
    (fit,) = told(x, np.clip(x, -1.0, 1.0))
    assert fit.kind == "saturation" and "values are cut off at 1 in size" in fit.words
    x[:, 32:64] *= 6  # one head holds nearly all that is cut off
    (fit,) = told(x, np.clip(x, -3.0, 3.0))
    assert fit.kind == "saturation"
    x = np.random.default_rng(1).standard_normal((64, 96))
    x[:, 7] *= 40  # one massive channel
    assert kinds(x, np.clip(x, -20.0, 20.0)) == ["saturation"]


def test_a_row_that_is_wrong_is_no_few_values() -> None:
    x = trained()
    y = x.copy()
    y[30] += np.random.default_rng(1).standard_normal(256)
    assert kinds(x, y) == kinds(x, y, noise=4e-3) == []


def test_of_small_tensors_no_few_values_are_told() -> None:
    x = np.arange(48.0).reshape(6, 8)
    y = x.copy()
    y[3, 3] = -5
    assert "one value" not in kinds(x, y)


IDS = np.argsort(np.random.default_rng(0).random((64, 60)), axis=1)[:, :8]
"""The experts of 64 tokens, 8 of 60 each."""


def test_ids_in_another_order_in_rows_are_no_heads() -> None:
    random = np.random.default_rng(1)
    swapped = IDS.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    some = IDS.copy()
    some[::3, :4] = some[::3, 3::-1]
    for y in (swapped, some, np.sort(IDS, 1), IDS[:, ::-1], random.permuted(IDS, axis=1), np.roll(IDS, 1, 1)):
        (fit,) = told(IDS.astype(float), y.astype(float), "int64")
        assert fit.kind in ("order in rows", "shifted channels", "reversed"), fit
        assert "head" not in fit.words and "expert" not in fit.words
    for y in (swapped, some, np.sort(IDS, 1), random.permuted(IDS, axis=1)):
        assert kinds(IDS.astype(float), y.astype(float), "int64") == ["order in rows"]


def test_ids_that_are_others_are_in_no_other_order() -> None:
    y = np.argsort(np.random.default_rng(5).random((64, 60)), axis=1)[:, :8]
    assert kinds(IDS.astype(float), y.astype(float), "int64") == []


def test_ids_off_by_one_are_an_offset() -> None:
    tokens = np.random.default_rng(0).integers(0, 50_000, (4, 128)).astype(float)
    for by in (1.0, -1.0, 17.0):
        (fit,) = told(tokens, tokens + by, "int64")
        assert fit.kind == "offset" and fit.words.startswith(f"{by:.3g} is added to every value")
    places = np.tile(np.arange(128.0), (4, 1))
    (fit,) = told(places, places + 1, "int64")
    assert fit.kind == "offset"


def test_shifted_rows_of_ids_are_told() -> None:
    x = np.random.default_rng(0).integers(0, 50_000, (64, 16)).astype(float)
    assert kinds(x, np.roll(x, 1, 0), "int64") == ["shifted rows"]
    assert kinds(x, np.concatenate([x[2:], x[:2] * 0 + 7]), "int64") == ["shifted rows"]
    assert kinds(x, np.random.default_rng(1).integers(0, 50_000, (64, 16)).astype(float), "int64") == []


def test_ids_have_no_factors_and_are_not_turned() -> None:
    x = np.random.default_rng(0).integers(0, 50_000, (64, 64)).astype(float)
    for y in (2 * x, np.clip(x, 1000, 40_000), x * np.linspace(1, 2, 64)):
        assert not {"scale", "saturation", "scale by channel", "turned", "permuted channels"} & {
            fit.kind for fit in fits_of(x, np.floor(y), "int64", "int64")
        }


def test_a_factor_is_told_only_where_its_digits_show_it() -> None:
    x = np.random.default_rng(0).standard_normal((64, 96))
    assert told(x, x * 1.001)[0].words.startswith("every value is 1.001 times golden's")
    assert told(x, x * (1 - 1e-4))[0].words.startswith("every value is 0.9999 times golden's")
    assert told(x, x * (1 + 1e-7)) == []


def test_factors_by_row_that_print_alike_are_not_told() -> None:
    x = np.random.default_rng(0).standard_normal((64, 96))
    factors = np.random.default_rng(1).uniform(-1, 1, 96)
    assert told(x, x * (1 + 0.1 * factors))[0].words.startswith(
        "each channel is golden's times a factor of its own (0.9"
    )
    assert "scale by channel" not in [fit.kind for fit in fits_of(x, x * (1 + 1e-5 * factors))]


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (80, 80)])
def test_a_factor_by_row_that_may_be_one_by_channel_is_not_told(shape: tuple[int, int]) -> None:
    """Of golden with one value a row and a channel, either explains any change."""
    random = np.random.default_rng(0)
    rows, channels = random.uniform(0.5, 2, (shape[0], 1)), random.uniform(0.5, 2, shape[1])
    x = np.eye(*shape) * random.uniform(1, 2, shape)
    assert kinds(x, x * rows) == kinds(x, x * channels) == []
    x = random.standard_normal(shape)
    assert kinds(x, x * rows) == ["scale by row"]
    assert kinds(x, x * channels) == ["scale by channel"]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(72, 256), (16, 64), (2, 40, 64), (300, 4), (1, 512), (4, 3, 16, 32)]),
    size=st.sampled_from([1e-3, 1e-2, 0.1]),
    massive=st.sampled_from([1.0, 100.0, 25_000.0]),
    noise=st.sampled_from([0.0, 1e-3, 4e-3]),
)
def test_noise_of_narrow_types_is_explained_by_nothing(
    seed: int, shape: tuple[int, ...], size: float, massive: float, noise: float
) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    x.reshape(-1, shape[-1])[0, :2] *= massive
    y = x * (1 + size * random.standard_normal(shape))
    if massive < 1000:
        y += size * random.standard_normal(shape)
    fits = fits_of(BF16(x), BF16(y), "bfloat16", "bfloat16", noise=noise)
    assert all(0.0 <= fit.explained <= 1.0 for fit in fits)
    found = [fit.kind for fit in fits if fit.explained >= GOOD]
    assert set(found) <= ({"one value", "few values"} if massive > 1 else set()), found

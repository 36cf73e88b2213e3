"""A planted change of random tensors is named; random errors are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.compare.diagnosis.rounding import LARGEST, rounder
from tests.compare.reference import values as decoded
from tests.compare.test_pair import encode

Arrays = np.ndarray
Change = Callable[[Arrays, np.random.Generator], Arrays]


def _swap(x: Arrays, axis: int, blocks: int) -> Arrays:
    """Swap the first and the last of some blocks along an axis."""
    parts = np.array_split(x, blocks, axis)
    return np.concatenate([parts[-1], *parts[1:-1], parts[0]], axis)


def _turn(x: Arrays, speed: float, phase: float | Arrays = 0.0) -> Arrays:
    first, second = np.split(x, 2, -1)
    rates = 50.0 ** -np.linspace(0, 1, first.shape[-1])
    angle = speed * np.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) * rates + phase
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), first * np.sin(angle) + second * np.cos(angle)], -1
    )


CHANGES: dict[str, tuple[Change, str]] = {
    "twice": (lambda x, r: 2 * x, "scale"),
    "a quarter": (lambda x, r: x / 4, "scale"),
    "1.3 times": (lambda x, r: 1.3 * x, "scale"),
    "negated": (lambda x, r: -x, "scale"),
    "offset": (lambda x, r: x + 0.7, "offset"),
    "bias": (lambda x, r: x + r.standard_normal(x.shape[-1]), "offset by channel"),
    "mean by row": (lambda x, r: x + r.standard_normal((*x.shape[:-1], 1)), "offset by row"),
    "norm weights": (lambda x, r: x * (1 + r.random(x.shape[-1])), "scale by channel"),
    "scale by row": (lambda x, r: x * (1 + r.random((*x.shape[:-1], 1))), "scale by row"),
    "rows shifted": (lambda x, r: np.roll(x, 1, -2), "shifted rows"),
    "rows shifted back": (lambda x, r: np.concatenate([x[..., 2:, :], x[..., -2:, :]], -2), "shifted rows"),
    "columns shifted": (lambda x, r: np.roll(x, 3, -1), "shifted channels"),
    "columns reversed": (lambda x, r: np.flip(x, -1), "reversed"),
    "rows reversed": (lambda x, r: np.flip(x, -2), "reversed"),
    "heads swapped": (lambda x, r: _swap(x, -1, 4), "permuted channels"),
    "rows swapped": (lambda x, r: _swap(x, -2, 4), "permuted rows"),
    "interleaved": (lambda x, r: x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape), "transposed"),
    "transposed": (lambda x, r: x.swapaxes(-1, -2).reshape(x.shape), "transposed"),
    "clipped": (lambda x, r: np.clip(x, -0.6, 0.6), "saturation"),
    "rectified": (lambda x, r: np.maximum(x, 0.0), "saturation"),
    "zero": (lambda x, r: 0 * x, "zeros"),
    "constant": (lambda x, r: 0 * x + 3, "constant"),
    "rows zero": (lambda x, r: np.where(np.arange(x.shape[-2])[:, None] < 3, 0.0, x), "zeros"),
    "columns zero": (lambda x, r: np.where(np.arange(x.shape[-1]) < 5, 0.0, x), "zeros"),
    "dropout": (lambda x, r: np.where(r.random(x.shape) < 0.3, 0.0, x / 0.7), "dropout"),
}
EXACT = ("zero", "constant", "rows zero", "columns zero", "clipped", "rectified", "dropout")
"""What round-off spoils: values that are exactly zero or at a limit."""


@pytest.mark.parametrize("change", CHANGES)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(["float64", "float32", "float16", "bfloat16"]),
    shape=st.sampled_from([(24, 32), (64, 48), (33, 128), (2, 32, 64), (4, 40, 32)]),
)
def test_a_planted_change_is_named(change: str, seed: int, name: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    plant, kind = CHANGES[change]
    x = random.standard_normal(shape)
    y = plant(x, random)
    if change not in EXACT:
        y = y * (1 + 1e-3 * random.standard_normal(shape))
    x, y = (decoded(encode(side.ravel(), name), name).reshape(shape) for side in (x, y))
    fits = fits_of(x, y, name, name)
    assert fits and fits[0].explained >= 0.9, (change, fits)
    assert fits[0].kind == kind, fits
    assert all(fit.explained <= 1.0 for fit in fits)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(16,), (300,), (4, 4), (1, 512), (20, 16), (64, 48), (17, 3, 32), (512, 2), (2, 512)]),
    size=st.sampled_from([1e-3, 0.1, 1.0, 10.0]),
    outlier=st.booleans(),
)
def test_random_errors_are_not_explained(seed: int, shape: tuple[int, ...], size: float, outlier: bool) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    if outlier:
        x[..., 0] *= 50
    noise = random.standard_normal(shape) * (np.abs(x) if outlier else 1.0)
    assert [fit for fit in fits_of(x, x + size * noise) if fit.explained >= 0.9] == []
    assert [fit for fit in fits_of(x, size * random.standard_normal(shape)) if fit.explained >= 0.9] == []


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_a_silent_down_cast_is_named_by_its_type(name: str) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((32, 64)).astype(np.float32).astype(np.float64)
    y = rounder(name)(x * (1 + 1e-6 * random.standard_normal(x.shape)))
    (fit, *_) = fits_of(x, y, "float32", "float32")
    assert fit.kind == "down-cast" and f"one of {name}," in fit.words and fit.explained > 0.99
    assert not [fit for fit in fits_of(x, y, "float32", name) if fit.kind == "down-cast"]  # it is not silent


@pytest.mark.parametrize("name", ["float16", "float8_e4m3fn", "float8_e5m2"])
def test_saturation_names_the_type(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((64, 64)) * LARGEST[name]
    (fit, *_) = fits_of(x, np.clip(x, -LARGEST[name], LARGEST[name]))
    assert fit.kind == "saturation" and f"saturation in {name}?" in fit.words


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_rounding_agrees_with_ml_dtypes(name: str) -> None:
    x = np.random.default_rng(0).standard_normal(10_000) * np.repeat([1e-3, 1.0, 50.0, 200.0], 2500)
    found, expected = rounder(name)(x), decoded(encode(x, name), name)
    same = np.isfinite(expected)  # float8 saturates here
    assert np.array_equal(found[same], expected[same])


@pytest.mark.parametrize(
    ("speed", "kind"), [(0.0, "turned"), (1.0, "turned with position"), (-0.01, "turned with position")]
)
@pytest.mark.parametrize("shape", [(48, 64), (64, 4, 32)])
def test_turned_pairs_of_channels(speed: float, kind: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    phase = np.linspace(0.1, 1, shape[-1] // 2) if speed == 0.0 else 0.0
    (fit, *_) = fits_of(x, _turn(x, speed, phase))
    assert (fit.kind, round(fit.explained, 2)) == (kind, 1.0)
    assert f"halves of each {shape[-1]} channels" in fit.words


def test_words_of_factors() -> None:
    x = np.random.default_rng(0).standard_normal((8, 64))
    words = {factor: fits_of(x, factor * x)[0].words for factor in (2.0, 8.0, 0.5, 0.125, -1.0, 1.04)}
    assert words[2.0].startswith("every value is twice golden's")
    assert words[8.0].startswith("every value is 8 times golden's")
    assert "half golden's" in words[0.5] and "1/8 of golden's" in words[0.125]
    assert "sign turned" in words[-1.0] and "1.04 times" in words[1.04]


def test_a_head_that_occurs_twice() -> None:
    x = np.random.default_rng(0).standard_normal((32, 8, 16))
    y = x[:, np.arange(8) // 2].reshape(32, 128)
    (fit, *_) = fits_of(x.reshape(32, 128), y)
    assert fit.kind == "permuted channels" and "some twice: in channels 16-31 are golden's channels 0-15" in fit.words


@pytest.mark.parametrize("factor", [1e-200, 1e200, 1e-30])
def test_sizes_that_squares_cannot_hold(factor: float) -> None:
    x = np.random.default_rng(0).standard_normal((32, 64))
    assert fits_of(x * factor, 2 * x * factor)[0].kind == "scale"
    (fit, *_) = fits_of(x * factor, np.clip(x, -0.5, 0.5) * factor)
    assert fit.kind == "saturation" and f"{0.5 * factor:.6g}" in fit.words


def test_nothing_to_fit() -> None:
    x = np.random.default_rng(0).standard_normal((8, 8))
    assert fits_of(x, x) == fits_of(x[:1], 2 * x[:1]) == fits_of(0 * x, 0 * x) == ()
    assert fits_of(np.empty((0, 3)), np.empty((0, 3))) == ()
    assert fits_of(np.array(1.0), np.array(2.0)) == ()

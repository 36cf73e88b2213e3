"""Rotary positions that went wrong: turned by a rule, turned freely, or norms that alone are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.compare.diagnosis.rounding import rounder
from aclcmp.orchestrator.judge.hints import hints_of
from tests.judge.wrong import label_of, look_of

BF16 = rounder("bfloat16")
TOKENS, HEADS, SIZE = 96, 3, 64
PLACES = np.arange(TOKENS)
NARROW = 4e-3
"""Relative error of what is right in bfloat16."""


def queries(seed: int = 0) -> np.ndarray:
    """Queries before RoPE, shape (tokens, heads, size); no two heads and tokens have the same norm."""
    random = np.random.default_rng(seed)
    return random.standard_normal((TOKENS, HEADS, SIZE)) * np.exp(0.3 * random.standard_normal(SIZE))


def roped(
    x: np.ndarray, places: np.ndarray = PLACES, *, base: float = 1e4, interleaved: bool = False, narrow: bool = False
) -> np.ndarray:
    """Halves of each head turned by position, or neighbours; `narrow`: angles in bfloat16."""
    rates = base ** (-np.arange(0, SIZE, 2) / SIZE)
    angles = places[:, None] * rates
    if narrow:
        angles = BF16(BF16(places.astype(float))[:, None] * BF16(rates))
    turn = np.exp(1j * angles)[:, None]
    if interleaved:
        pairs = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)
    pairs = (x[..., : SIZE // 2] + 1j * x[..., SIZE // 2 :]) * turn
    return np.concatenate([pairs.real, pairs.imag], -1)


def told(x: np.ndarray, y: np.ndarray, name: str = "float32", noise: float = 0.0) -> tuple[str, str]:
    fits = fits_of(x, y, name, name, noise=noise)
    return (fits[0].kind, fits[0].words) if fits and fits[0].explained >= 0.9 else ("", "")


LAYOUTS = {
    "tokens, heads x size": lambda x: x.reshape(TOKENS, -1),
    "batch, tokens, heads x size": lambda x: x.reshape(1, TOKENS, -1),
    "batch, heads, tokens, size": lambda x: x.transpose(1, 0, 2)[None],
    "tokens, heads, size": lambda x: x,
}
WRONG = {
    "interleaved": (lambda q: roped(q, interleaved=True), "norms kept", "neighbours against halves (interleaved)"),
    "low precision": (lambda q: roped(q, narrow=True), "turned freely", "of rounded ones"),
    "other positions": (
        lambda q: roped(q, np.random.default_rng(2).permutation(TOKENS)),
        "turned freely",
        "RoPE of other positions",
    ),
    "missing": (lambda q: q, "turned with position", "RoPE missing"),
    "another base": (lambda q: roped(q, base=5e5), "turned with position", "of another base"),
    "off by one": (lambda q: roped(q, PLACES + 1), "turned", "positions off by a constant"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_rope_is_told_by_its_kind(wrong: str, layout: str) -> None:
    change, kind, words = WRONG[wrong]
    x, y = (LAYOUTS[layout](side) for side in (roped(queries()), change(queries())))
    found = told(x, y)
    assert found[0] == kind and words in found[1], found
    found = told(BF16(x), BF16(y), "bfloat16", NARROW)
    assert found[0] == kind and words in found[1], found


@pytest.mark.parametrize("wrong", ["interleaved", "low precision", "other positions"])
def test_wrong_rope_is_no_group_of_a_quantisation_and_no_head(wrong: str) -> None:
    """Low rates turn little, high ones much: the error is periodic in the channels."""
    x, y = (side.reshape(TOKENS, -1) for side in (roped(queries()), WRONG[wrong][0](queries())))
    (hint,) = hints_of(label_of(x, {0: y}), {0: look_of(x, y)})
    assert hint.kind == WRONG[wrong][1] and "quantisation" not in hint.words and "head" not in hint.words


def test_rows_of_equal_norms_keep_them_by_chance() -> None:
    """After a norm all rows and heads have one length, whatever their values: that says nothing of RoPE."""
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, TOKENS, HEADS, SIZE))
    assert told(x, y) == ("", "")
    x, y = (side / np.linalg.norm(side, axis=-1, keepdims=True) for side in (x, y))
    assert told(x, y) == told(x.reshape(TOKENS, -1), y.reshape(TOKENS, -1)) == ("", "")


def test_other_lengths_are_no_turn() -> None:
    x = roped(queries())
    y = roped(queries(), interleaved=True)
    y *= np.random.default_rng(1).uniform(0.7, 1.4, (TOKENS, HEADS, 1))
    assert told(x, y) == ("", "")


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1e-2, 0.1, 1.0]), heads=st.sampled_from([(), (3, 64), (192,)]))
def test_noise_is_no_turn(seed: int, size: float, heads: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    x = queries(seed).reshape(TOKENS, *(heads or (1, 192)))
    y = x * (1 + size * random.standard_normal(x.shape)) + size * random.standard_normal(x.shape)
    fits = fits_of(BF16(x), BF16(y), "bfloat16", "bfloat16", noise=NARROW)
    assert [fit for fit in fits if fit.explained >= 0.9] == []
    assert all(fit.explained <= 1.0 for fit in fits)


def test_one_large_pair_or_head_keeps_its_length_by_chance() -> None:
    def kinds(x: np.ndarray, error: np.ndarray) -> set[str]:
        return {fit.kind for fit in fits_of(x, x + error) if fit.explained >= 0.9}

    for seed in range(60):
        random = np.random.default_rng(seed)
        pair = random.standard_normal((1, 512))
        pair[0, :2] *= 100
        assert kinds(pair, 0.01 * random.standard_normal(pair.shape) * (1 + np.abs(pair))) <= {
            "one value",
            "few values",
        }
        heads = random.standard_normal((48, 256)) * random.uniform(0.7, 1.4, (48, 1))
        heads[0] *= 300
        assert kinds(heads, 0.1 * heads * random.standard_normal(heads.shape)) == set()

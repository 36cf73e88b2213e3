"""Hints from places: from a row on, one value, an even error; and what they must not be told of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.diagnosis.rounding import rounder
from aclcmp.orchestrator.judge.error_places import AxisSums, even_error, place_of, start_of
from aclcmp.orchestrator.judge.hints import hints_of
from tests.judge.wrong import label_of, look_of

BF16 = rounder("bfloat16")
X = np.random.default_rng(0).standard_normal((96, 128))
NOISE = 4e-3
TRAINED = X * np.where(np.arange(96) == 0, 2000.0, 1.0)[:, None]
"""The first token is massive."""


def error(seed: int = 1, shape: tuple[int, ...] = X.shape) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def rounded(x: np.ndarray, seed: int = 2) -> np.ndarray:
    """Round-off as of bfloat16: relative to each value."""
    return x * (1 + NOISE / 2 * error(seed, x.shape))


def told(x: np.ndarray, y: np.ndarray, noise: float = 0.0) -> list[tuple[str, str]]:
    look = look_of(x, y)
    hints = hints_of(label_of(x, {0: y}), {0: look}, {0: noise})
    assert all(hint.explained <= 1.0 for hint in hints)
    return [(hint.kind, hint.words) for hint in hints]


def kinds(x: np.ndarray, y: np.ndarray, noise: float = 0.0) -> list[str]:
    return [kind for kind, _ in told(x, y, noise)]


@pytest.mark.parametrize("row", [24, 44, 8])
def test_a_stale_slot_of_the_cache_is_told_from_its_row_on(row: int) -> None:
    """Rows before it do not attend to it; later ones do, each a little."""
    y = X.copy()
    y[row:] += 0.3 * error()[row:] / np.sqrt(np.arange(1, 97 - row))[:, None]
    (hint,) = told(X, y)
    assert hint[0] == "from a row on" and f"no row before {row} is wrong, {96 - row} of the {96 - row} from" in hint[1]


def test_a_stale_slot_is_told_beside_round_off_of_massive_rows() -> None:
    y = rounded(TRAINED)
    y[40:] += 0.2 * error()[40:]
    (hint,) = told(TRAINED, y, NOISE)
    assert hint[0] == "from a row on" and "no row before 40 is wrong" in hint[1]


def test_few_last_rows_are_still_the_last_rows() -> None:
    y = X.copy()
    y[92:] += error()[92:]
    ((kind, words),) = told(X, y)
    assert kind == "last rows" and words.endswith("padding, a length that is off, or a slot of the cache overwritten?")


def test_a_clean_decode_is_called_nothing() -> None:
    """Its one row, or its rows of round-off, are no padding and no place of a cache."""
    for rows in (1, 2, 4, 96):
        for x in (X[:rows], TRAINED[:rows]):
            for size in (1.0, 3.0):
                y = x * (1 + size * NOISE * error(3, x.shape))
                found = kinds(x, y, NOISE)
                assert not {"last rows", "from a row on", "one row", "growth with position"} & set(found), found


def test_errors_that_start_with_the_first_rows_start_nowhere() -> None:
    for first in (0, 1, 3):
        y = X.copy()
        y[first:] += 0.3 * error()[first:]
        assert "from a row on" not in kinds(X, y)


def test_an_error_that_creeps_in_starts_nowhere() -> None:
    assert "from a row on" not in kinds(X, X + 1e-5 * 1.15 ** np.arange(96)[:, None] * error())


def test_one_clamped_massive_value_is_no_head_and_no_tile() -> None:
    x = X.copy()
    x[0, 40] = 5000.0
    y = rounded(np.where(x == 5000.0, 448.0, x))
    for noise in (0.0, NOISE):
        ((kind, words),) = told(x, y, noise)
        assert kind == "one value" and "448" not in words[:20] and "where golden has 5000" in words


def test_one_value_is_told_without_a_fit_too() -> None:
    x = X.copy()
    x[0, 40] = 5000.0
    y = rounded(np.where(x == 5000.0, 448.0, x))
    (hint,) = hints_of(label_of(x, {0: y}), {0: replace(look_of(x, y), fits=())}, {0: NOISE})
    assert hint.kind == "one value" and hint.words.startswith(
        "row 0 holds all of it and channel 40 holds all of it: one"
    )
    y = X.copy()
    y[20] += error()[20]  # a whole row is not one value
    assert kinds(X, y) == ["one row"]


def test_a_clamp_of_many_values_is_no_place() -> None:
    x = X.copy()
    x[:, 32:64] *= 6
    assert kinds(x, np.clip(x, -3, 3)) == ["saturation"]


LEVELS = {"int8": 127, "int6": 31, "int4": 7}


def quantised(x: np.ndarray, seed: int, levels: int, dim: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Golden and actual of a projection whose weights are quantised by output channel."""
    weights = error(seed, (dim, dim)) / np.sqrt(dim)
    scale = np.abs(weights).max(0) / levels
    return x @ weights, x @ (np.round(weights / scale) * scale)


def float8(values: np.ndarray) -> np.ndarray:
    return rounder("float8_e4m3fn")(values * 16) / 16


@pytest.mark.parametrize("levels", LEVELS)
def test_quantised_weights_are_told(levels: str) -> None:
    x = error(5, (96, 128))
    for seed in range(4):
        golden, actual = quantised(x, seed, LEVELS[levels])
        ((kind, words),) = told(golden, actual)
        assert kind == "even error" and words.startswith("the error is about the same in all rows, ")
        assert "quantised weights" in words
        ((kind, _),) = told(golden, rounded(actual), NOISE)
        assert kind == "even error"


def test_float8_weights_are_told() -> None:
    x, weights = error(5, (96, 128)), error(6, (128, 128)) / np.sqrt(128)
    ((kind, words),) = told(x @ weights, x @ float8(weights))
    assert kind == "even error" and "float8" in words


def test_products_of_fewer_bits_are_told_apart_from_quantised_ones() -> None:
    """As of TF32: float32 numbers with 10 bits of mantissa go into a product."""

    def cut(values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)

    x, weights = error(5, (96, 128)), error(6, (128, 128)) / np.sqrt(128)
    found = told(x @ weights, cut(x) @ cut(weights))
    assert [(kind, "TF32" in words) for kind, words in found] in ([("even error", True)], [])
    found = told(x @ weights, BF16(x) @ BF16(weights))
    assert [(kind, "bfloat16" in words) for kind, words in found] == [("even error", True)]


def test_an_error_that_goes_with_golden_is_not_even() -> None:
    """A factor with noise around it, or a wrong epsilon, is no quantisation."""
    for share in (0.5, 0.8, 1.0):
        y = X * (1 + 0.05 * share) + 0.05 * np.sqrt(max(1 - share**2, 0.1)) * error()
        assert "even error" not in kinds(X, y), share
    assert kinds(X, X + 0.05 * error()) == ["even error"]


def test_errors_of_other_sizes_are_not_even() -> None:
    assert kinds(X, X + 0.5 * error()) == []  # more than a quantisation costs
    assert "even error" not in kinds(X, X + 0.05 * np.linspace(0.3, 1, 96)[:, None] * error())
    assert (
        even_error(AxisSums("row", 1, np.arange(4), np.ones(4), np.ones(4))) == 0.0
    )  # of four rows that may be chance
    assert even_error(AxisSums("row", 1, np.arange(9), np.ones(9), np.full(9, 0.04))) == pytest.approx(0.2)


def along(dd: np.ndarray, xx: np.ndarray | None = None) -> AxisSums:
    return AxisSums("row", 1, np.arange(len(dd)), np.ones(len(dd)) if xx is None else xx, np.asarray(dd, float))


def test_round_off_of_one_massive_row_does_not_outweigh_a_wrong_one() -> None:
    golden = np.ones(64)
    golden[0] = 1e8
    dd = golden * NOISE**2
    dd[30] = 1.0
    sums = along(dd, golden)
    assert sums.sum_dd[0] > 1000 * sums.sum_dd[30]
    place = place_of(sums.beyond(NOISE))
    assert place is not None and place.words == "row 30 holds all of it"


def test_without_noise_or_beyond_it_nothing_is_left_out() -> None:
    sums = along(np.full(64, NOISE**2))
    assert sums.beyond(0.0) is sums
    assert sums.beyond(NOISE) is sums  # all is noise: what is wrong is not much more
    assert along(np.array([])).beyond(NOISE).sum_dd.size == 0


def test_places_that_are_beyond_the_noise_by_chance_are_no_places() -> None:
    """Of an error about as large as what counts as noise one row may be above it, the others below."""
    dd = np.full(64, (2.9 * NOISE) ** 2)
    dd[30] = (3.1 * NOISE) ** 2
    assert along(dd).beyond(NOISE).sum_dd.tolist() == dd.tolist() and place_of(along(dd).beyond(NOISE)) is None
    dd[30] = (6.1 * NOISE) ** 2
    place = place_of(along(dd).beyond(NOISE))
    assert place and place.words == "row 30 holds all of it"


@pytest.mark.parametrize("chosen", [(5, 38), (3, 20, 41), (17, 45, 90, 101)])
def test_a_few_places_anywhere_are_no_period(chosen: tuple[int, ...]) -> None:
    """Any two places are in two of every 16."""
    for count in (64, 128, 1024):
        dd = np.full(count, 1e-6)
        dd[[each % count for each in chosen]] = 1.0
        place = place_of(along(dd))
        assert place and place.kind == "few"
    y = X.copy()
    y[:, [each % 128 for each in chosen]] += error()[:, : len(chosen)]
    assert kinds(X, y) == []


def test_groups_of_a_quantisation_are_a_period_though_some_are_right() -> None:
    y = X.copy()
    y[:, 3::16] += np.where(np.arange(8) % 4 == 1, 0.0, 1.0) * error()[:, 3::16]
    ((kind, words),) = told(X, y)
    assert kind == "period channel" and words.startswith("channels 3 of every 16 hold all of it")


def test_small_rows_are_noise_as_of_the_median_row() -> None:
    golden = np.ones(64)
    golden[5] = 1e-8  # padding: its round-off is that of what it was computed from
    dd = np.full(64, 1e-3 * NOISE**2)
    dd[5], dd[9] = NOISE**2, 1.0
    place = place_of(along(dd, golden).beyond(NOISE))
    assert place and place.words == "row 9 holds all of it"


def test_sums_that_overflow_have_no_place() -> None:
    golden, dd = np.ones(8), np.ones(8)
    golden[0] = dd[0] = np.inf
    assert place_of(along(dd, golden).beyond(NOISE)) is None


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    rows=st.sampled_from([5, 16, 72, 300]),
    size=st.sampled_from([0.3, 1.0]),
    massive=st.sampled_from([1.0, 100.0, 25_000.0]),
    noise=st.sampled_from([0.0, NOISE]),
)
def test_round_off_alone_is_no_place(seed: int, rows: int, size: float, massive: float, noise: float) -> None:
    """In float32 it would be wrong, and even: that alone may be said."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, 64))
    x[0] *= massive
    y = BF16(x * (1 + size * NOISE * random.standard_normal(x.shape)))
    found = set(kinds(BF16(x), y, noise))
    assert found <= {"even error", "down-cast"}, found
    assert start_of(along((error(seed % 1000, (rows,)) ** 2) * NOISE**2), NOISE) is None

"""In masks the lowest value of a type is as good as -inf, where the other side has one of the two, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.diagnosis.second_look import diagnose_pairs
from aclcmp.orchestrator.core.diagnosis import Suspect
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import RankVerdict, Status
from tests.compare.diagnosis.test_second_look import Stored, pair_of
from tests.compare.test_pair import check, encode, whole_stats
from tests.judge.series import judge_on, verdict_on

HALVES = ["bfloat16", "float16"]
FLOATS = ["float64", "float32", *HALVES]
LOWEST = {name: float(ml_dtypes.finfo(getattr(ml_dtypes, name, name)).min) for name in FLOATS}


def mask(name: str, hidden: float, size: int = 48) -> np.ndarray:
    """A causal mask, as it is added to scores, in bits."""
    return encode(np.triu(np.full((size, size), hidden), 1), name).reshape(size, size)


def seen(x: np.ndarray, y: np.ndarray, x_name: str, y_name: str) -> PairStats:
    """The statistics of two sides, which are also what plain numpy says."""
    found = whole_stats(x, y, x_name, y_name)
    check(x, y, x_name, y_name, found)
    return found


def verdict(x: np.ndarray, y: np.ndarray, x_name: str, y_name: str) -> RankVerdict:
    sides = [bits.view(getattr(ml_dtypes, n)) if n == "bfloat16" else bits for bits, n in ((x, x_name), (y, y_name))]
    return verdict_on(judge_on({"mask": (sides[0], sides[1])}), "mask")


@pytest.mark.parametrize("y_name", FLOATS)
@pytest.mark.parametrize("x_name", FLOATS)
@pytest.mark.parametrize("turned", [False, True])
def test_minus_infinity_and_the_lowest_value_hide_alike(x_name: str, y_name: str, turned: bool) -> None:
    x, y = mask(x_name, -np.inf), mask(y_name, LOWEST[y_name])
    if turned:
        x, y, x_name, y_name = y, x, y_name, x_name
    stats, found = seen(x, y, x_name, y_name), verdict(x, y, x_name, y_name)
    hidden = 48 * 47 // 2
    assert stats.n_nonfinite_equal == stats.neginf_x == stats.neginf_y == hidden and stats.max_abs_d == 0.0
    assert found.status is Status.MATCH and not found.bitwise


@pytest.mark.parametrize(
    ("x_name", "y_name"), [("float32", "bfloat16"), ("float16", "float32"), ("float64", "float16")]
)
def test_lowest_values_of_two_types_hide_alike(x_name: str, y_name: str) -> None:
    x, y = mask(x_name, LOWEST[x_name]), mask(y_name, LOWEST[y_name])
    assert seen(x, y, x_name, y_name).n_nonfinite_equal and verdict(x, y, x_name, y_name).status is Status.MATCH


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("other", [0.0, -1.0, -1e4, np.nan, np.inf])
def test_another_value_in_one_place_is_wrong(name: str, other: float) -> None:
    """A token that sees what it may not: it is hidden in golden, by either value."""
    for hidden in (-np.inf, LOWEST[name]):
        x, y = mask(name, hidden), mask(name, LOWEST[name])
        y[3, 9] = encode(np.array([other]), name)[0]
        for golden, actual in ((x, y), (y, x)):
            seen(golden, actual, name, name)
            assert verdict(golden, actual, name, name).status in (Status.NONFINITE, Status.DIVERGED)


@pytest.mark.parametrize("name", FLOATS)
def test_more_than_is_hidden_in_golden_is_wrong(name: str) -> None:
    """A mask that is shifted by one, or of a sliding window."""
    x, y = mask(name, -np.inf), mask(name, LOWEST[name])
    assert verdict(x, np.roll(y, 1, 1), name, name).status is Status.NONFINITE
    wider = encode(np.triu(np.full((48, 48), LOWEST[name]), 0), name).reshape(48, 48)
    assert verdict(x, wider, name, name).status is Status.DIVERGED, "golden is finite there, and the lowest value too"


@pytest.mark.parametrize("name", FLOATS)
def test_the_largest_value_is_no_infinity(name: str) -> None:
    x, y = mask(name, np.inf), mask(name, -LOWEST[name])
    assert verdict(x, y, name, name).status is Status.NONFINITE


@pytest.mark.parametrize("name", FLOATS)
def test_what_is_equal_stays_equal_bit_by_bit(name: str) -> None:
    for hidden in (-np.inf, LOWEST[name]):
        x = mask(name, hidden)
        assert verdict(x, x.copy(), name, name).bitwise


def test_all_is_hidden() -> None:
    x, y = np.full((4, 4), -np.inf, np.float32), np.full((4, 4), LOWEST["float32"], np.float32)
    assert verdict(x, y, "float32", "float32").status is Status.MATCH


def test_a_wrong_value_beside_a_mask_is_held_against_what_is_not_hidden() -> None:
    """Scores with a mask: lowest values do not drown what is wrong beside them."""
    scores = np.random.default_rng(0).standard_normal((48, 48)).astype(np.float32)
    x, y = np.tril(scores) + mask("float32", -np.inf), np.tril(scores) + mask("float32", LOWEST["float32"])
    assert verdict(x, y, "float32", "float32").status is Status.MATCH
    y[40, 1:20] *= np.float32(1.1)
    found = verdict(x, y, "float32", "float32")
    assert found.status is Status.DIVERGED and "(row 40)" in found.reason


@given(st.integers(0, 2**32 - 1), st.sampled_from(FLOATS), st.sampled_from(FLOATS), st.sampled_from([7, 513, 4100]))
def test_any_mixture_is_as_plain_numpy_has_it(seed: int, x_name: str, y_name: str, width: int) -> None:
    random = np.random.default_rng(seed)
    sides = []
    for name in (x_name, y_name):
        low = LOWEST[name]
        values = np.array([-np.inf, low, np.nextafter(low, 0) if name == "float64" else low, 0.0, 1.5, -1.0, low / 2])
        often = random.choice(values, (2, width), p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.05, 0.05])
        sides.append(encode(often.ravel(), name).reshape(2, width))
    if "float64" not in (x_name, y_name):  # squares of half of its range leave float64
        seen(sides[0], sides[1], x_name, y_name)
    else:
        stats = whole_stats(sides[0], sides[1], x_name, y_name)
        assert stats.n_nonfinite_equal == np.count_nonzero(
            (sides[0].view(_memory(x_name)).astype(float) <= DTYPES[x_name].lowest)
            & (sides[1].view(_memory(y_name)).astype(float) <= DTYPES[y_name].lowest)
        )


def _memory(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


@pytest.mark.parametrize("name", FLOATS)
def test_a_second_look_tells_where_only_one_side_hides(name: str, tmp_path: Path) -> None:
    stored = Stored(tmp_path / "s")
    x, y = mask(name, -np.inf), mask(name, LOWEST[name])
    y[3, 9] = y[3, 11] = y[7, 11] = encode(np.array([-1.0]), name)[0]
    pair = pair_of(stored.source(x, name), stored.source(y, name))
    look = diagnose_pairs(Suspect((pair,), 1.0))
    assert (look.nonfinite_rows.index.tolist(), look.nonfinite_rows.count.tolist()) == ([3, 7], [2, 1])
    assert (look.nonfinite_channels.index.tolist(), look.nonfinite_channels.count.tolist()) == ([9, 11], [1, 2])
    assert not look.channels.sum_dd.any() and np.isfinite(look.channels.sum_xx).all()

"""In which rows and channels values are not finite on one side alone, from real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.diagnosis.second_look import MOST_CHANNELS, diagnose_pairs
from aclcmp.orchestrator.core.diagnosis import Counts, Look, Suspect
from aclcmp.orchestrator.core.regions import Region
from tests.compare.diagnosis.test_second_look import Stored, pair_of
from tests.compare.test_pair import encode
from tests.compare.test_pair import split as split_at_random

NAN, INF = np.nan, np.inf


def looked(folder: Path, x: np.ndarray, y: np.ndarray, dtype: str = "float32", seed: int | None = None) -> Look:
    """The second look at two arrays in files, in random parts of them if there is a seed."""
    stored = Stored(folder / "tensors")
    golden, actual = (stored.source(encode(side.ravel(), dtype).reshape(x.shape), dtype) for side in (x, y))
    whole = Region.whole(x.shape)
    parts = [whole] if seed is None else split_at_random(np.random.default_rng(seed), whole, 3)
    return diagnose_pairs(Suspect(tuple(pair_of(golden, actual, part) for part in parts), 1.0))


def places(counts: Counts) -> dict[int, int]:
    return dict(zip(counts.index.tolist(), counts.count.tolist(), strict=True))


def values(shape: tuple[int, ...] = (12, 20)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_nan_on_one_side_is_counted_by_row_and_channel(tmp_path: Path, dtype: str) -> None:
    x, y = values(), values()
    y[3, 5:8], y[9, 7] = NAN, INF
    x[0, 0] = -INF
    look = looked(tmp_path, x, y, dtype)
    assert places(look.nonfinite_rows) == {0: 1, 3: 3, 9: 1}
    assert places(look.nonfinite_channels) == {0: 1, 5: 1, 6: 1, 7: 2}


def test_what_is_not_finite_in_the_same_way_is_not_counted(tmp_path: Path) -> None:
    x, y = values(), values()
    x[1, 2] = y[1, 2] = NAN
    x[2, 3] = y[2, 3] = INF
    x[4, 5] = y[4, 5] = -INF
    look = looked(tmp_path, x, y)
    assert places(look.nonfinite_rows) == places(look.nonfinite_channels) == {}
    y[2, 3], y[1, 2] = -INF, INF
    look = looked(tmp_path, x, y)
    assert places(look.nonfinite_rows) == {1: 1, 2: 1} and places(look.nonfinite_channels) == {2: 1, 3: 1}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_infinity_in_a_mask_is_as_good_as_the_lowest_value(tmp_path: Path, dtype: str) -> None:
    lowest = float(np.finfo(dtype).min)
    x, y = values(), values()
    x[3], y[3] = -INF, lowest
    x[4], y[4] = lowest, -INF
    look = looked(tmp_path, x, y, dtype)
    assert places(look.nonfinite_rows) == {} and look.histogram.sum() == 0
    y[3, 0], x[4, 1] = -100.0, -lowest  # values that scores are not lost in; the largest is none
    look = looked(tmp_path, x, y, dtype)
    assert places(look.nonfinite_rows) == {3: 1, 4: 1} and places(look.nonfinite_channels) == {0: 1, 1: 1}


def test_rows_of_more_dimensions_and_many_channels_are_numbered_in_the_whole(tmp_path: Path) -> None:
    x, y = values((3, 4, 5)), values((3, 4, 5))
    y[2, 1, 3] = NAN
    assert places(looked(tmp_path, x, y).nonfinite_rows) == {9: 1}
    x, y = values((2, 2 * MOST_CHANNELS)), values((2, 2 * MOST_CHANNELS))
    y[1, [6, 7, 100]] = NAN
    look = looked(tmp_path, x, y)
    assert look.nonfinite_channels.group == 2 and places(look.nonfinite_channels) == {3: 2, 50: 1}


def test_a_scalar_and_a_vector_have_one_row(tmp_path: Path) -> None:
    look = looked(tmp_path, np.array(1.0), np.array(NAN))
    assert places(look.nonfinite_rows) == places(look.nonfinite_channels) == {0: 1}
    x, y = values((9,)), values((9,))
    y[4:6] = NAN
    look = looked(tmp_path, x, y)
    assert places(look.nonfinite_rows) == {0: 2} and places(look.nonfinite_channels) == {4: 1, 5: 1}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "float16", "bfloat16", "float64"]),
)
def test_parts_are_counted_like_the_whole(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shape: tuple[int, ...], dtype: str
) -> None:
    random = np.random.default_rng(seed)
    x, y = (random.choice([0.5, -2.0, NAN, INF, -INF], shape, p=[0.6, 0.25, 0.05, 0.05, 0.05]) for _ in range(2))
    with np.errstate(invalid="ignore"):
        odd = ~(np.isfinite(x) & np.isfinite(y)) & ~(np.isnan(x) & np.isnan(y)) & (x != y)
    look = looked(tmp_path_factory.mktemp("stored"), x, y, dtype, seed)
    flat = odd.reshape(-1, shape[-1])
    for axis, counts in ((1, look.nonfinite_rows), (0, look.nonfinite_channels)):
        expected = flat.sum(axis)
        assert places(counts) == {int(i): int(expected[i]) for i in np.flatnonzero(expected)}

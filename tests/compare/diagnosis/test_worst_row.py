"""The values of the worst row that a second look keeps, from real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.compare.diagnosis.second_look import diagnose_pairs
from aclcmp.orchestrator.core.diagnosis import MOST_WORST_VALUES, Suspect, WorstRow
from aclcmp.orchestrator.core.regions import Region
from tests.compare.diagnosis.test_second_look import Stored, pair_of
from tests.compare.test_pair import encode
from tests.compare.test_pair import split as split_at_random


def worst_row(
    folder: Path, x: np.ndarray, y: np.ndarray, row: int, dtype: str = "float32", seed: int | None = None
) -> WorstRow:
    stored = Stored(folder / "tensors")
    golden, actual = (stored.source(encode(side.ravel(), dtype).reshape(x.shape), dtype) for side in (x, y))
    whole = Region.whole(x.shape)
    parts = [whole] if seed is None else split_at_random(np.random.default_rng(seed), whole, 3)
    suspect = Suspect(tuple(pair_of(golden, actual, part) for part in parts), 1.0, row=row)
    found = diagnose_pairs(suspect).worst_row
    assert found is not None
    return found


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(("start", "channel"), [(0, 3), (100 - 32, 100), (500 - MOST_WORST_VALUES, 498)])
def test_the_values_around_the_place_that_is_off_most(tmp_path: Path, start: int, channel: int) -> None:
    x = values(3, 4, 500)
    y = x + 1e-3
    y[1, 2, channel] += 1.0
    found = worst_row(tmp_path, x, y.astype(np.float32), 1 * 4 + 2)
    assert (found.whole_shape, found.row, found.start) == ((3, 4, 500), (1, 2), start)
    part = slice(start, start + MOST_WORST_VALUES)
    assert np.array_equal(found.golden, x[1, 2, part])
    assert np.array_equal(found.actual, y.astype(np.float32)[1, 2, part])


@pytest.mark.parametrize("seed", range(8))
def test_of_a_row_in_several_pieces_the_one_with_the_largest_error(tmp_path: Path, seed: int) -> None:
    x = values(6, 40)
    y = x.copy()
    y[4, 17] += 2.0
    found = worst_row(tmp_path, x, y, 4, "float64", seed)
    assert found.row == (4,) and found.start <= 17 < found.start + len(found.golden)
    assert found.actual[17 - found.start] == y[4, 17] and found.largest == pytest.approx(2.0)


def test_the_first_row_with_a_value_that_is_not_finite(tmp_path: Path) -> None:
    x = values(12, 20)
    y = x + 1.0
    y[7, 5] = y[9, 1] = np.nan
    found = worst_row(tmp_path, x, y.astype(np.float32).astype(np.float64), -1)
    assert found.row == (7,) and np.isnan(found.actual[5 - found.start]) and found.largest == np.inf


@pytest.mark.parametrize("shape", [(), (30,)])
def test_tensors_without_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = values(*shape)
    found = worst_row(tmp_path, x, x + 0.5, 0, "float64")
    assert found.row == () and found.start == 0 and np.array_equal(found.golden, x.ravel())


def test_complex_tensors_have_none(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "tensors")
    x = values(4, 6)
    golden, actual = (stored.source(side.astype(np.complex64), "complex64") for side in (x, 2 * x))
    assert diagnose_pairs(Suspect((pair_of(golden, actual),), 1.0, row=2)).worst_row is None

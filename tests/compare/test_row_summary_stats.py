"""What summaries of rows tell of a pair, against the pair itself: bounds hold, estimates are as good as promised."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.row_summaries import BUCKETS, RowSummaries
from aclcmp.labeling.shard.summarise import summarise_rows
from aclcmp.orchestrator.compare.row_summary_stats import stats_of_row_summaries
from aclcmp.orchestrator.compare.summaries import error_bar
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.stats import Basis, PairStats
from aclcmp.orchestrator.core.verdicts import Status
from tests.compare.reference import reference_stats, values
from tests.compare.test_pair import random_bits
from tests.compare.test_summaries import PATTERNS, Change, changes, error_of, noise, status_of

SIGMA = math.sqrt(2 / BUCKETS)
"""Relative standard deviation of an estimated sum of squares of a row, at most."""


def summaries_of(bits: np.ndarray, dtype: str = "float32", sketch: bool = True) -> RowSummaries:
    flat = np.ascontiguousarray(bits).reshape(-1).view(np.uint8)
    return summarise_rows(flat, dtype, len(bits), sketch=sketch)


def stats_of(x: np.ndarray, y: np.ndarray, dtype: str = "float32", sketch: bool = True) -> PairStats:
    return stats_of_row_summaries(summaries_of(x, dtype, sketch), summaries_of(y, dtype, sketch), dtype, dtype)


@pytest.mark.parametrize("width", [4096, 1021 * 3, 1000, 576, 64])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_estimates_errors_of_any_pattern(pattern: str, width: int) -> None:
    """Each row by itself, and the whole: errors that are alike in all rows are off alike."""
    x = noise((300_000 // width, width))
    y = x + error_of(pattern, x)
    truth = ((y.astype(np.float64) - x) ** 2).sum(axis=1)
    stats = stats_of(x, y)
    assert stats.basis is Basis.ROW_FINGERPRINT
    assert abs(stats.sum_dd - truth.sum()) <= 5 * SIGMA * truth.sum()
    assert (stats.rows.sum_dd <= truth * (1 + 1e-9)).all()
    if pattern == "element":
        assert stats.sum_dd == pytest.approx(truth.sum(), rel=1e-9)
    if "row" in pattern:
        assert (stats.rows.sum_dd[truth == 0] == 0).all() or pattern == "permuted rows"


@pytest.mark.parametrize("pattern", ["spread", "stride", "constant", "stretch"])
def test_the_estimate_is_unbiased_and_its_deviation_as_promised(pattern: str) -> None:
    """Shift the error within the row: other signs and shifts each time."""
    width, ratios = 64 * 1024, []
    shapes = {"spread": noise((1024,), 1), "stride": np.zeros(1024, np.float32), "constant": np.ones(1024, np.float32)}
    shapes["stride"][::64] = 1.0  # one channel of each head: a plain i mod 32 has all of it in one bucket
    shapes["stretch"] = np.append(np.ones(64), np.zeros(960)).astype(np.float32)
    d = shapes[pattern]
    truth = float((d.astype(np.float64) ** 2).sum())
    zero = summaries_of(np.zeros((1, width), np.float32)).sketches
    for shift in range(0, width - d.size, 512):
        y = np.zeros((1, width), np.float32)
        y[0, shift : shift + d.size] = d
        ratios.append(float(np.square(summaries_of(y).sketches - zero).sum()) / truth)
    assert np.std(ratios) <= 1.3 * SIGMA
    assert abs(np.mean(ratios) - 1) <= 5 * SIGMA / math.sqrt(len(ratios) / 2)  # neighbours share half of it


@settings(max_examples=150, derandomize=True)  # estimates have tails
@given(changes([(1, 5), (3, 5), (7, 300), (900, 33), (2, 4000)]), st.booleans())
def test_bounds_hold_and_the_rest_is_exact(change: Change, sketch: bool) -> None:
    name, x_bits, y_bits = change
    found = stats_of(x_bits, y_bits, name, sketch)
    x, y = values(x_bits, name), values(y_bits, name)
    if found.n_finite < found.n:
        return  # overflowed in the narrow type; non-finite values have a test of their own
    expected = reference_stats(x_bits, y_bits, name, name, x_bits.shape, Region.whole(x_bits.shape))
    rounding = 1e-24 * (expected.sum_xx + expected.sum_yy)
    if found.basis is Basis.NORMS:
        assert found.sum_dd <= expected.sum_dd * (1 + 1e-9) + rounding
        assert math.isnan(found.sum_xy) or found.n_equal == found.n
    else:
        assert abs(found.sum_dd - expected.sum_dd) <= 7 * SIGMA * expected.sum_dd + rounding
    assert (found.rows.sum_dd <= expected.rows.sum_dd * (1 + 1e-9) + rounding).all()
    np.testing.assert_allclose(found.rows.sum_xx, expected.rows.sum_xx, rtol=1e-12)
    assert (found.min_x, found.max_x, found.min_y, found.max_y) == (x.min(), x.max(), y.min(), y.max())
    assert (found.n, found.n_finite, found.n_nonfinite_equal) == (x.size, x.size, 0)
    assert found.sum_d == pytest.approx(expected.sum_d, abs=1e-12 * float((abs(x) + abs(y)).sum()))
    assert (found.n_equal == found.n) == (x_bits.tobytes() == y_bits.tobytes())
    metrics_of(found)
    status_of(found, name, name)


def test_no_row_among_many_is_overestimated() -> None:
    """The bound of each of 40,000 rows holds; the estimates themselves are too large for half of them."""
    x, d = noise((40_000, 576)), noise((40_000, 576), 1)
    stats = stats_of(x, x + 0.01 * d)
    y = (x + 0.01 * d).astype(np.float64)
    truth = ((y - x) ** 2).sum(axis=1)
    assert (stats.rows.sum_dd <= truth).all()
    assert np.median(stats.rows.sum_dd / truth) > 0.3, "a bound that says something"
    assert status_of(stats, "bfloat16", "bfloat16") is Status.MATCH


@pytest.mark.parametrize("width", [576, 4096])
def test_one_wrong_row_is_named(width: int) -> None:
    """A token that got its neighbour's row, or its own permuted, in a tensor with the round-off of bfloat16."""
    x = noise((2000, width))
    healthy = x * (1 + 0.01 * noise((2000, width), 3))
    for wrong in (healthy[701], healthy[700, ::-1], -healthy[700]):
        y = healthy.copy()
        y[700] = wrong
        found = stats_of(x, y)
        assert metrics_of(found).worst_row_index == 700
        assert status_of(found, "bfloat16", "bfloat16") is Status.DIVERGED


def test_norms_see_a_scale_a_shift_and_a_spike_but_no_order_within_a_row() -> None:
    x = noise((50, 64))
    for wrong in (x[7] * 1.5, x[7] + 1, -abs(x[7])):
        y = x.copy()
        y[7] = wrong
        found = stats_of(x, y, sketch=False)
        truth = float(((y.astype(np.float64) - x) ** 2).sum())
        assert 0 < found.sum_dd <= truth * (1 + 1e-9) and metrics_of(found).worst_row_index == 7
        assert status_of(found, "float32", "float32") is Status.DIVERGED
    assert status_of(stats_of(x, np.roll(x, 1, 0), sketch=False), "float32", "float32") is Status.DIVERGED
    assert stats_of(x, x[:, ::-1], sketch=False).sum_dd < 1e-20
    assert status_of(stats_of(x, x[:, ::-1]), "float32", "float32") is Status.DIVERGED


def test_basis_and_error_bars() -> None:
    x, y = noise((4, 50)), noise((4, 50), 1)
    pairs = ((summaries_of(x), summaries_of(y, sketch=False)), (summaries_of(x, sketch=False), summaries_of(y)))
    for pair in pairs:
        assert stats_of_row_summaries(*pair, "float32", "float32").basis is Basis.NORMS
    assert error_bar(Basis.ROW_FINGERPRINT) == pytest.approx(0.25)


@pytest.mark.parametrize("sketch", [True, False])
def test_equal_rows_have_no_error(sketch: bool) -> None:
    x = random_bits(np.random.default_rng(0), "bfloat16", (30, 70), "ordinary")
    equal = stats_of(x, x.copy(), "bfloat16", sketch)
    assert equal.n_equal == equal.n and equal.max_ulp == 0 and status_of(equal, "bfloat16", "bfloat16") is Status.MATCH
    y = x.copy()
    y[3, 3] ^= 1
    found = stats_of(x, y, "bfloat16", sketch)
    assert found.n_equal == -1 and np.flatnonzero(found.rows.sum_dd).tolist() in ([3], [])
    wide = values(x, "bfloat16").astype(np.float32)
    pair = summaries_of(x, "bfloat16", sketch), summaries_of(wide, "float32", sketch)
    across = stats_of_row_summaries(*pair, "bfloat16", "float32")
    assert across.sum_dd == 0.0 and across.n_equal == -1


@pytest.mark.parametrize("sketch", [True, False])
def test_exact_types(sketch: bool) -> None:
    x = np.random.default_rng(0).integers(0, 100, (40, 50))

    def found(y: np.ndarray) -> tuple[int, Status]:
        pair = summaries_of(x, "int64", sketch), summaries_of(y, y.dtype.name, sketch)
        stats = stats_of_row_summaries(*pair, "int64", y.dtype.name)
        return stats.n_equal, status_of(stats, "int64", y.dtype.name)

    assert found(x) == found(x.astype(np.uint8)) == (x.size, Status.MATCH)
    other = x.copy()
    other[3, 4] += 1
    assert found(other) == found(other.astype(np.int32)) == found(x[:, ::-1]) == (-1, Status.DIVERGED)


@pytest.mark.parametrize("sketch", [True, False])
def test_nonfinite_values(sketch: bool) -> None:
    x = noise((30, 40))
    x[0, 0], x[1, 1], x[2, 2] = np.nan, np.inf, -np.inf
    y = x.copy()
    y[5, 5] *= 1 + 1e-6
    same = stats_of(x, y, sketch=sketch)
    assert (same.n_nonfinite_equal, same.n_finite) == (3, 1197)
    assert status_of(same, "float32", "float32") is Status.MATCH
    changes = {(2, 2): np.inf, (7, 7): np.nan, (0, 0): 0.0}
    for place, value in changes.items():
        other = x.copy()
        other[place] = value
        assert status_of(stats_of(x, other, sketch=sketch), "float32", "float32") is Status.NONFINITE
    nothing = stats_of(np.full_like(x, np.nan), x, sketch=sketch)
    assert nothing.n_finite == 0 and status_of(nothing, "float32", "float32") is Status.NONFINITE
    moved = x.copy()  # the same place in another row
    moved[0, 0], moved[9, 0] = moved[9, 0], moved[0, 0]
    assert status_of(stats_of(x, moved, sketch=sketch), "float32", "float32") is Status.NONFINITE


@pytest.mark.parametrize("sketch", [True, False])
def test_what_overflows_is_not_green(sketch: bool) -> None:
    x = np.array([[1e300, -1e300, 1e308], [2.0, 3.0, 1e308]])
    for y in (x * 0.5, -x, np.zeros_like(x), x + 1e290):
        for golden, actual in ((x, y), (y, x)):
            found = stats_of(golden, actual, "float64", sketch)
            assert status_of(found, "float64", "float64") in (Status.DIVERGED, Status.FAILED)


def test_refuses_other_shapes_and_kinds() -> None:
    for x, y in (((4, 5), (5, 4)), ((4, 5), (4, 6)), ((4, 5), (5, 5))):
        with pytest.raises(ValueError, match="different shapes"):
            stats_of(noise(x), noise(y))
    pair = summaries_of(np.zeros((4, 5), np.float32)), summaries_of(np.zeros((4, 5), np.int32), "int32")
    with pytest.raises(ValueError, match="float32 cannot be compared with int32"):
        stats_of_row_summaries(*pair, "float32", "int32")

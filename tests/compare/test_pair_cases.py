"""What one case at a time shows best: accuracy, long rows and many, exact integers, and what a pair refuses."""

import warnings

import numpy as np
import pytest

from aclcmp.orchestrator.compare.pair import MAX_ROW_GROUPS, Operand, pair_stats, row_group
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.stats import PairStats
from tests.compare.test_pair import check, encode, operand, whole_stats


@pytest.mark.parametrize("width", [1, 64, 511, 513, 2047, 4096, 10_000])
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "complex64"])
def test_blocks_and_rows_of_all_lengths(width, name):
    rng = np.random.default_rng(width)
    components = 2 if name == "complex64" else 1
    x = rng.standard_normal(max(30_000 // width, 2) * width * components)
    y = x * (1 + 1e-3 * rng.standard_normal(x.size))
    x_bits, y_bits = (encode(side, name).reshape(-1, width) for side in (x, y))
    check(x_bits, y_bits, name, name, whole_stats(x_bits, y_bits, name, name))


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1.0000001, 1e-19, 3e38, 1e-44])
def test_long_sums_of_one_value_do_not_drift(constant):
    x = np.full((8, 65_536), constant, np.float32)
    y = x * np.float32(1.001)
    check(x, y, "float32", "float32", whole_stats(x, y, "float32", "float32"))


def test_one_huge_or_tiny_value_among_ordinary_ones():
    x = np.random.default_rng(0).standard_normal((4, 5_000)).astype(np.float32)
    y = x + np.float32(1e-4)
    x[0, 17], y[1, 4_000], x[2, 2_500], x[3, 1:] = 3e38, -3e38, 1e-45, 0
    check(x, y, "float32", "float32", whole_stats(x, y, "float32", "float32"))


def test_nonfinite_values_in_some_blocks():
    x = np.random.default_rng(0).standard_normal((6, 3_000)).astype(np.float32)
    y = x.copy()
    x[1, ::7] = y[1, ::7] = -np.inf
    x[2, 5] = y[2, 6] = np.nan
    x[3], y[3] = np.inf, -np.inf
    stats = whole_stats(x, y, "float32", "float32")
    check(x, y, "float32", "float32", stats)
    assert stats.n - stats.n_finite == 429 + 2 + 3_000
    assert stats.n_nonfinite_equal == 429


@pytest.mark.parametrize("rows", [MAX_ROW_GROUPS, MAX_ROW_GROUPS + 1, 200_000])
def test_rows_beyond_a_limit_are_summed_in_groups(rows):
    x = np.random.default_rng(rows).standard_normal((2, rows // 2, 3)).astype(np.float32)
    y = x + np.float32(1e-3)
    whole = whole_stats(x, y, "float32", "float32")
    check(x, y, "float32", "float32", whole)
    assert whole.rows.group == row_group(x.shape) == {65_536: 1, 65_537: 1, 200_000: 4}[rows]
    halves = [Region((0, 0, 0), (2, rows // 2, 1)), Region((0, 0, 1), (2, rows // 2, 2))]
    parts = [pair_stats(operand(x, "float32", r), operand(y, "float32", r), x.shape, r) for r in halves]
    check(x, y, "float32", "float32", parts[1].merge(parts[0]))


def test_integers_are_equal_only_exactly():
    x = np.array([2**53, 2**60, -1, 5], np.int64)
    y = np.array([2**53 + 1, 2**60, -1, 7], np.int64)
    stats = whole_stats(x, y, "int64", "int64")
    assert (stats.n_equal, stats.n_over_tolerance, stats.max_abs_d, stats.max_ulp) == (2, 2, 2.0, -1)
    stats = whole_stats(x, np.array([2**53, 2**60, 2**64 - 1, 5], np.uint64), "int64", "uint64")
    assert stats.n_equal == 3
    small = whole_stats(np.array([1, 255], np.uint8), np.array([1, -1], np.int16), "uint8", "int16")
    assert (small.n_equal, small.max_abs_d) == (1, 256.0)


def test_zeros_differ_in_sign_but_not_in_value():
    stats = whole_stats(np.array([0.0], np.float32), np.array([-0.0], np.float32), "float32", "float32")
    assert (stats.n_equal, stats.max_abs_d, stats.max_ulp) == (0, 0.0, 0)


@pytest.mark.parametrize(
    ("name", "below", "above"),
    [
        ("float32", -1e-45, 1e-45),
        ("float16", -6e-8, 6e-8),
        ("bfloat16", -9.2e-41, 9.2e-41),
        ("float64", -5e-324, 5e-324),
    ],
)
def test_distance_in_representable_values_counts_through_zero(name, below, above):
    x, y = encode(np.array([below]), name), encode(np.array([above]), name)
    assert whole_stats(x, y, name, name).max_ulp == 2


def test_the_whole_float_range_is_one_distance():
    x, y = np.array([-3.4028235e38], np.float32), np.array([3.4028235e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats = whole_stats(x, y, "float32", "float32")
    assert stats.max_ulp == 2 * 0x7F7FFFFF
    assert stats.max_abs_d == float(y[0]) - float(x[0])


def test_bits_may_lie_at_an_odd_address():
    x = np.random.default_rng(0).standard_normal(5_000).astype(np.float32)
    moved = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32)
    region = Region.whole(x.shape)
    stats = pair_stats(operand(x, "float32", region), Operand(moved, "float32", x.shape, region), x.shape, region)
    assert stats.n_equal == 5_000


def test_empty_regions_have_empty_statistics():
    x = np.empty((3, 0), np.float32)
    assert whole_stats(x, x, "float32", "float32").n == 0
    region = Region((1, 2), (0, 2))
    y = np.ones((4, 4), np.float32)
    assert pair_stats(operand(y, "float32", region), operand(y, "float32", region), (4, 4), region).rows.index.size == 0


def test_what_does_not_fit_together_is_refused():
    x = np.ones((2, 2), np.float32)
    whole, row = Region.whole((2, 2)), Region((0, 0), (1, 2))
    with pytest.raises(ValueError, match="regions of shapes"):
        pair_stats(operand(x, "float32", whole), operand(x, "float32", row), (2, 2), whole)
    with pytest.raises(ValueError, match="cannot be compared"):
        pair_stats(operand(x, "float32", whole), operand(x.astype(np.int32), "int32", whole), (2, 2), whole)
    grouped = whole_stats(np.ones((200_000, 1), np.float32), np.ones((200_000, 1), np.float32), "float32", "float32")
    with pytest.raises(ValueError, match="not parts of one tensor"):
        grouped.merge(whole_stats(x, x, "float32", "float32"))
    assert PairStats.empty().merge(PairStats.empty()).n == 0

"""What summaries tell of a pair, against the pair itself: bounds hold, estimates are as good as promised."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.summarise import summarise
from aclcmp.labeling.shard.tensor_summary import SKETCH_SIZE, TensorSummary
from aclcmp.orchestrator.compare.summaries import error_bar, stats_of_summaries
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.stats import Basis, PairStats
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.judge.dtype_limits import limits_of
from aclcmp.orchestrator.judge.pair_status import judge_pair
from tests.compare.reference import reference_stats, values
from tests.compare.test_pair import encode, random_bits

SHAPES = ((), (5,), (3, 5), (7, 300), (9000, 3), (2, 3, 4000))
FLAVOURS = ("ordinary", "tiny", "few values", "offset")
SIGMA = math.sqrt(2 / SKETCH_SIZE)
"""Relative standard deviation of an estimated sum of squares, at most."""


def summary_of(bits: np.ndarray, dtype: str, sketch: bool = True) -> TensorSummary:
    flat = np.ascontiguousarray(bits).reshape(-1).view(np.uint8)
    return summarise(flat, dtype, bits.shape, sketch=sketch)


def stats_of(x: np.ndarray, y: np.ndarray, dtype: str = "float32", sketch: bool = True) -> PairStats:
    return stats_of_summaries(summary_of(x, dtype, sketch), summary_of(y, dtype, sketch), dtype, dtype)


def status_of(stats: PairStats, golden: str, actual: str) -> Status:
    return judge_pair(stats, metrics_of(stats), limits_of(golden, actual))[0]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


Change = tuple[str, np.ndarray, np.ndarray]
"""dtype, bits of a tensor, and bits of what it was changed into."""


@st.composite
def changes(draw: st.DrawFn, shapes: Sequence[tuple[int, ...]]) -> Change:
    """Tensors of reals that differ by relative errors, in all elements or in a few."""
    name = draw(st.sampled_from([name for name in DTYPES if DTYPES[name].kind in (Kind.FLOAT, Kind.COMPLEX)]))
    shape, size = draw(st.sampled_from(shapes)), draw(st.sampled_from([1.0, 1e-2, 1e-5]))
    flavour = draw(st.sampled_from(FLAVOURS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = random_bits(rng, name, shape, flavour)
    x = values(bits, name)
    at_random = rng.random(x.shape) < rng.choice([0.01, 1.0])
    return name, bits, encode((x * (1 + size * at_random * rng.standard_normal(x.shape))).ravel(), name).reshape(shape)


def error_of(pattern: str, x: np.ndarray) -> np.ndarray:
    """Return an error of a pattern for a golden tensor of two axes."""
    d = np.zeros_like(x)
    rows, columns = x.shape
    match pattern:
        case "spread":
            d += 1e-3 * noise(x.shape, 1)
        case "element":
            d[rows // 2, columns // 3] = 0.7
        case "row":
            d[rows // 2] = noise((columns,), 2)
        case "constant row":
            d[rows // 2] = 0.25
        case "column":
            d[:, columns // 3] = noise((rows,), 3)
        case "constant column":
            d[:, 0] = 0.5
        case "permuted columns":
            d = x[:, ::-1] - x
        case "permuted rows":
            d = np.roll(x, 1, 0) - x
        case "scaled":
            d = x * np.float32(0.04)
        case "constant":
            d += np.float32(0.125)
    return d


PATTERNS = (
    "spread",
    "element",
    "row",
    "constant row",
    "column",
    "constant column",
    "permuted columns",
    "permuted rows",
    "scaled",
    "constant",
)


@pytest.mark.parametrize("width", [4096, 1021 * 3, 1000, 1024, 64, 1])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_estimates_errors_of_any_pattern(pattern: str, width: int) -> None:
    x = noise((300_000 // width, width))
    y = x + error_of(pattern, x)
    truth = float(((y.astype(np.float64) - x) ** 2).sum())
    stats = stats_of(x, y)
    assert stats.basis is Basis.FINGERPRINT
    assert abs(stats.sum_dd - truth) <= 5 * SIGMA * truth
    if pattern == "element":
        assert stats.sum_dd == pytest.approx(truth, rel=1e-9)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    assert stats.sum_xy == pytest.approx((x64 * y64).sum(), rel=1e-12, abs=5 * SIGMA * truth)


@pytest.mark.parametrize("width", [4096, 1021 * 3, 64])
@pytest.mark.parametrize("pattern", ["spread", "column", "constant column", "constant", "row"])
def test_the_estimate_is_unbiased_and_its_deviation_as_promised(pattern: str, width: int) -> None:
    """Shift the error through the tensor: other signs and shifts each time."""
    base = np.zeros((65_536 // width, width), np.float32)
    d = error_of(pattern, base)
    truth = float((d.astype(np.float64) ** 2).sum())
    zero = summary_of(np.zeros(d.size + 100 * 1024, np.float32), "float32")
    ratios = []
    for shift in range(100):
        y = np.zeros(d.size + 100 * 1024, np.float32)
        y[1024 * shift : 1024 * shift + d.size] = d.ravel()
        ratios.append(float(np.square(summary_of(y, "float32").sketch - zero.sketch).sum()) / truth)
    assert np.std(ratios) <= 1.3 * SIGMA
    assert abs(np.mean(ratios) - 1) <= 5 * SIGMA / math.sqrt(10)  # the shifted ones share most lines: count 10


@settings(max_examples=150, derandomize=True)  # estimates have tails
@given(changes(SHAPES), st.booleans())
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
    else:
        assert abs(found.sum_dd - expected.sum_dd) <= 7 * SIGMA * expected.sum_dd + rounding
    if found.rows.index.size > 1:
        groups = np.arange(0, expected.rows.index.size, found.rows.group)
        by_row = np.add.reduceat(expected.rows.sum_dd, groups)
        assert (found.rows.sum_dd <= by_row * (1 + (1.0 if sketch else 1e-9)) + rounding).all()
    assert (found.min_x, found.max_x, found.min_y, found.max_y) == (x.min(), x.max(), y.min(), y.max())
    assert (found.n, found.n_finite, found.n_nonfinite_equal) == (x.size, x.size, 0)
    assert found.sum_d == pytest.approx(expected.sum_d, abs=1e-12 * float((abs(x) + abs(y)).sum()))
    metrics = metrics_of(found)
    if x.any():
        assert math.isfinite(metrics.rel_l2) and math.isfinite(metrics.worst_row)
    if found.n_equal < 0 and x.any():
        assert math.isnan(metrics.max_abs) and math.isnan(metrics.linf_rel) and math.isnan(metrics.mean_abs)
    status_of(found, name, name)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("sketch", [True, False])
@pytest.mark.parametrize("shape", [(), (0,), (3, 50)])
def test_equal_digests_tell_everything(name: str, sketch: bool, shape: tuple[int, ...]) -> None:
    bits = random_bits(np.random.default_rng(5), name, shape, "any bits")
    found = stats_of(bits, bits.copy(), name, sketch)
    expected = reference_stats(bits, bits, name, name, shape, Region.whole(shape))
    assert found.basis is (Basis.FINGERPRINT if sketch else Basis.NORMS)
    for field in ("n", "n_equal", "n_finite", "sum_d", "sum_dd", "sum_abs_d", "max_abs_d", "sum_rel_d", "max_rel_d"):
        assert getattr(found, field) == getattr(expected, field), field
    for field in ("n_over_1k", "n_over_5k", "n_over_tolerance", "max_ulp", "nan_x", "posinf_y", "n_nonfinite_equal"):
        assert getattr(found, field) == getattr(expected, field), field
    assert found.sum_xy == found.sum_xx and not found.rows.sum_dd.any()
    assert metrics_of(found).mismatch_share == 0 or not bits.size
    assert status_of(found, name, name) is Status.MATCH


def test_basis_is_what_both_sides_have() -> None:
    x = noise((4, 5))
    with_sketch, without = summary_of(x, "float32"), summary_of(x + 1, "float32", sketch=False)
    for pair in ((with_sketch, without), (without, with_sketch)):
        assert stats_of_summaries(*pair, "float32", "float32").basis is Basis.NORMS
    assert error_bar(Basis.FINGERPRINT) == pytest.approx(0.0442, abs=1e-4)
    assert error_bar(Basis.NORMS) is error_bar(Basis.VALUES) is None


def test_norms_see_a_scale_a_shift_and_a_spike_but_no_permutation() -> None:
    x = noise((50, 64))
    spike = x.copy()
    spike[7, 7] = 100
    for y, least in ((x * np.float32(1.5), 0.499), (x + 1, 0.9), (spike, 0.9)):
        found = stats_of(x, y, sketch=False)
        truth = float(((y.astype(np.float64) - x) ** 2).sum())
        assert least * math.sqrt(truth) <= math.sqrt(found.sum_dd) <= math.sqrt(truth) * (1 + 1e-9)
        assert status_of(found, "float32", "float32") is Status.DIVERGED
    assert stats_of(x, x[:, ::-1], sketch=False).sum_dd < 1e-20
    assert status_of(stats_of(x, x[:, ::-1]), "float32", "float32") is Status.DIVERGED


def test_a_worst_row_is_named() -> None:
    x = noise((500, 64))
    y = x.copy()
    y[123] *= 3
    assert metrics_of(stats_of(x, y, sketch=False)).worst_row_index == 123


@pytest.mark.parametrize(("rows", "width"), [(256, 4096), (128, 512), (2000, 256), (5000, 64)])
def test_one_wrong_row_is_found_by_fingerprints(rows: int, width: int) -> None:
    """A token that got its neighbour's row, or its own permuted, in a tensor with the round-off of bfloat16."""
    x = noise((rows, width))
    healthy = x * (1 + 0.01 * noise((rows, width), 3))
    assert status_of(stats_of(x, healthy), "bfloat16", "bfloat16") is Status.MATCH
    for wrong in (healthy[rows // 3 + 1], healthy[rows // 3, ::-1]):
        y = healthy.copy()
        y[rows // 3] = wrong
        found = stats_of(x, y)
        worst = metrics_of(found)
        first = worst.worst_row_index * found.rows.group
        assert first <= rows // 3 < first + found.rows.group
        assert status_of(found, "bfloat16", "bfloat16") is Status.DIVERGED, worst.worst_row


def test_no_healthy_row_is_overestimated() -> None:
    x = noise((256, 1024))
    for seed in range(1, 30):
        y = x * (1 + 0.01 * noise((256, 1024), seed))
        assert metrics_of(stats_of(x, y)).worst_row < 0.0125


def test_one_row_has_the_error_of_the_whole() -> None:
    found = stats_of(noise((3000,)), noise((3000,), 1))
    assert found.rows.sum_dd.tolist() == [found.sum_dd]


def test_against_all_zeros_everything_is_known() -> None:
    y = noise((20, 30))
    for found in (stats_of(np.zeros_like(y), y), stats_of(np.zeros_like(y), y, sketch=False)):
        assert found.sum_dd == pytest.approx(found.sum_yy, rel=1e-12)
        assert found.max_abs_d == abs(y).max()
    found = stats_of(np.zeros_like(y), -np.zeros_like(y))
    assert found.sum_dd == found.max_abs_d == 0.0
    assert status_of(found, "float32", "float32") is Status.MATCH


@pytest.mark.parametrize("sketch", [True, False])
def test_values_without_error_have_none_across_types(sketch: bool) -> None:
    x = random_bits(np.random.default_rng(0), "bfloat16", (300, 700), "ordinary")
    y = values(x, "bfloat16").astype(np.float32)
    pair = summary_of(x, "bfloat16", sketch), summary_of(y, "float32", sketch)
    found = stats_of_summaries(*pair, "bfloat16", "float32")
    assert found.sum_dd == found.sum_d == 0.0 and not found.rows.sum_dd.any()
    assert status_of(found, "bfloat16", "float32") is Status.MATCH


@pytest.mark.parametrize("sketch", [True, False])
def test_exact_types(sketch: bool) -> None:
    x = np.random.default_rng(0).integers(0, 100, (40, 50))

    def found(y: np.ndarray) -> tuple[int, Status]:
        pair = summary_of(x, "int64", sketch), summary_of(y, y.dtype.name, sketch)
        stats = stats_of_summaries(*pair, "int64", y.dtype.name)
        metrics_of(stats)
        return stats.n_equal, status_of(stats, "int64", y.dtype.name)

    assert found(x) == found(x.astype(np.uint8)) == (x.size, Status.MATCH)
    other = x.copy()
    other[3, 4] += 1
    assert found(other) == found(other.astype(np.int32)) == (-1, Status.DIVERGED)
    assert found(x[:, ::-1]) == (-1, Status.DIVERGED)
    if sketch:
        assert found(x[:, ::-1].astype(np.int16)) == (-1, Status.DIVERGED)


@pytest.mark.parametrize("sketch", [True, False])
def test_nonfinite_values(sketch: bool) -> None:
    x = noise((30, 40))
    x[0, 0], x[1, 1], x[2, 2] = np.nan, np.inf, -np.inf
    y = x.copy()
    y[5, 5] *= 1 + 1e-6
    same = stats_of(x, y, sketch=sketch)
    assert (same.n_nonfinite_equal, same.n_finite) == (3, 1197)
    assert status_of(same, "float32", "float32") is Status.MATCH
    y[2, 2] = np.inf
    found = stats_of(x, y, sketch=sketch)
    assert (found.n_nonfinite_equal, found.n_finite, found.posinf_y, found.neginf_y) == (-1, 1194, 2, 0)
    assert status_of(found, "float32", "float32") is Status.NONFINITE
    found = stats_of(np.full_like(x, np.nan), x, sketch=sketch)
    assert (found.n_nonfinite_equal, found.n_finite) == (-1, 0)
    assert status_of(found, "float32", "float32") is Status.NONFINITE
    moved = x.copy()
    moved[0, 0], moved[0, 1] = moved[0, 1], moved[0, 0]
    assert status_of(stats_of(x, moved, sketch=sketch), "float32", "float32") is Status.NONFINITE


@pytest.mark.parametrize("sketch", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_the_lowest_values_of_a_mask_are_as_good_as_minus_infinity(dtype: str, sketch: bool) -> None:
    lowest = np.where(np.tri(30, 40, dtype=bool), 0.0, np.finfo(dtype).min).astype(dtype)
    infinite = np.where(lowest == 0.0, 0.0, -np.inf).astype(dtype)
    for x, y in ((lowest, infinite), (infinite, lowest)):
        assert status_of(stats_of(x, y, dtype, sketch), dtype, dtype) is Status.MATCH
    other = infinite.copy()
    other[0, 1] = 0.0
    assert status_of(stats_of(lowest, other, dtype, sketch), dtype, dtype) is Status.NONFINITE


@pytest.mark.parametrize("sketch", [True, False])
def test_what_overflows_is_not_green(sketch: bool) -> None:
    x = np.array([[1e300, -1e300, 1e308], [2.0, 3.0, 1e308]])
    for y in (x * 0.5, -x, np.zeros_like(x), x + 1e290):
        for golden, actual in ((x, y), (y, x)):
            found = stats_of(golden, actual, "float64", sketch)
            metrics_of(found)
            assert status_of(found, "float64", "float64") in (Status.DIVERGED, Status.FAILED)
    assert status_of(stats_of(x, x.copy(), "float64", sketch), "float64", "float64") is Status.MATCH


@pytest.mark.parametrize(
    ("golden", "actual"), [((4, 5), (5, 4)), ((4, 5), (20,)), ((8192, 2), (4096, 4)), ((3,), (4,))]
)
def test_refuses_other_shapes(golden: tuple[int, ...], actual: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="different shapes"):
        stats_of(noise(golden), noise(actual))


def test_refuses_other_kinds() -> None:
    x, y = np.zeros(4, np.float32), np.zeros(4, np.int32)
    with pytest.raises(ValueError, match="float32 cannot be compared with int32"):
        stats_of_summaries(summary_of(x, "float32"), summary_of(y, "int32"), "float32", "int32")

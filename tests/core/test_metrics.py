"""The figures against their formulas in plain numpy, and where they are undefined."""

import dataclasses
import math

import numpy as np
import pytest

from aclcmp.orchestrator.core.metrics import Metrics, metrics_of
from aclcmp.orchestrator.core.stats import PairStats, RowSums
from tests.compare.test_pair import whole_stats


def metrics(x: np.ndarray, y: np.ndarray, name: str = "float32") -> Metrics:
    return metrics_of(whole_stats(x, y, name, name))


def test_figures_follow_their_formulas():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((31, 200)).astype(np.float32) + np.float32(0.3)
    y = x * np.float32(1.02) + np.float32(0.01) * rng.standard_normal((31, 200)).astype(np.float32)
    x[3], y[5] = 0, y[5] * np.float32(1.5)
    found = metrics(x, y)
    x, y = x.astype(np.float64), y.astype(np.float64)
    d = y - x
    rel_l2 = np.linalg.norm(d) / np.linalg.norm(x)
    row_size, row_error = np.linalg.norm(x, axis=1), np.linalg.norm(d, axis=1)
    rows = row_error / np.maximum(row_size, np.sqrt(np.median(row_size[row_size > 0] ** 2)))
    alpha = (x * y).sum() / (x * x).sum()
    nonzero = x != 0
    expected = {
        "rel_l2": rel_l2,
        "worst_row": rows.max(),
        "row_p50": np.quantile(rows, 0.5, method="inverted_cdf"),
        "row_p99": np.quantile(rows, 0.99, method="inverted_cdf"),
        "cosine": (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y),
        "pcc": np.corrcoef(x.ravel(), y.ravel())[0, 1],
        "scale": alpha,
        "residual": np.linalg.norm(y - alpha * x) / np.linalg.norm(x),
        "sg_rel": (d * d).sum() / ((x * x).sum() + (y * y).sum()),
        "snr_db": -20 * np.log10(rel_l2),
        "linf_rel": np.abs(d).max() / np.abs(x).max(),
        "max_abs": np.abs(d).max(),
        "mean_abs": np.abs(d).mean(),
        "rms": np.sqrt((d * d).mean()),
        "max_rel": np.abs(d[nonzero] / x[nonzero]).max(),
        "mean_rel": np.abs(d[nonzero] / x[nonzero]).sum() / x.size,
        "ratio_1k": (np.abs(d) <= 1e-3 * np.abs(x)).mean(),
        "ratio_5k": (np.abs(d) <= 5e-3 * np.abs(x)).mean(),
        "pass_rate": (np.abs(d) <= 1e-5 + 1.3e-6 * np.abs(x)).mean(),
        "mismatch_share": (x != y).mean(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-6), name
    assert found.worst_row_index == int(rows.argmax())
    assert {*expected, "worst_row_index", "max_ulp"} == {field.name for field in dataclasses.fields(Metrics)}


def test_equal_tensors():
    found = metrics(np.ones((4, 4), np.float32), np.ones((4, 4), np.float32))
    assert (found.rel_l2, found.worst_row, found.snr_db) == (0.0, 0.0, math.inf)
    assert found.cosine == pytest.approx(1)
    assert (found.pass_rate, found.mismatch_share, found.max_ulp) == (1.0, 0.0, 0)
    assert math.isnan(found.pcc)


def test_zeros_on_both_sides_or_on_one():
    zero, one = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    both = metrics(zero, zero)
    assert (both.rel_l2, both.worst_row, both.linf_rel, both.sg_rel) == (0.0, 0.0, 0.0, 0.0)
    assert math.isnan(both.cosine)
    golden = metrics(zero, one)
    assert (golden.rel_l2, golden.worst_row, golden.linf_rel, golden.snr_db) == (
        math.inf,
        math.inf,
        math.inf,
        -math.inf,
    )
    assert golden.mean_rel == 0.0


def test_a_small_row_does_not_stand_out_for_its_round_off():
    x = np.ones((9, 64), np.float32)
    x[4] = 1e-6
    y = x + np.float32(1e-6)
    assert metrics(x, y).worst_row == pytest.approx(1e-6, rel=0.1)


def test_nothing_to_compare():
    found = metrics_of(PairStats.empty())
    assert (found.rel_l2, found.worst_row_index, found.max_ulp) == (0.0, -1, -1)
    undefined = ("worst_row", "row_p50", "cosine", "pcc", "scale", "residual", "max_abs", "rms", "pass_rate")
    assert all(math.isnan(getattr(found, name)) for name in (*undefined, "mismatch_share", "linf_rel", "mean_rel"))


def test_only_nonfinite_values():
    found = metrics(np.full(5, np.nan, np.float32), np.full(5, np.inf, np.float32))
    assert (found.rel_l2, found.worst_row, found.mismatch_share) == (0.0, 0.0, 1.0)
    assert math.isnan(found.pass_rate)


def test_sums_that_overflowed_give_no_warning():
    x = np.array([[1e200, -1e200], [1.0, 2.0]])
    found = metrics(x, 2 * x, "float64")
    assert math.isnan(found.rel_l2)
    assert found.max_abs == 1e200


def test_row_sums_of_one_index_add_up():
    left = RowSums(2, np.array([0, 3]), np.array([1.0, 2.0]), np.array([0.5, 0.0]))
    right = RowSums(2, np.array([1, 3]), np.array([4.0, 8.0]), np.array([0.0, 1.0]))
    merged = left.merge(right)
    assert merged.index.tolist() == [0, 1, 3]
    assert merged.sum_xx.tolist() == [1.0, 4.0, 10.0]
    assert merged.sum_dd.tolist() == [0.5, 0.0, 1.0]

"""Sums of a second look by the kernels for every kind of CPU."""

import ctypes
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.element_codes import FLOAT64
from aclcmp.orchestrator.compare.kernels.kernel import BLOCK, sum_errors
from aclcmp.orchestrator.compare.kernels.kernel_args import ErrorSums
from aclcmp.orchestrator.compare.kernels.operands import window_operand
from tests.compare.conftest import TARGETS

EVERYTHING = (-inf, -inf)


def add(x: np.ndarray, y: np.ndarray, sums: ErrorSums, lowest: tuple[float, float] = EVERYTHING) -> int:
    sides = [window_operand(side.ravel(), FLOAT64, 0, side.size) for side in (x, y)]
    return sum_errors(sides[0], sides[1], 0, x.size, lowest, sums)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 2), st.integers(0, 3), st.integers(0, 9), st.integers(0))
def test_every_target_gives_the_same_bits(
    kernels: ctypes.CDLL, rows: int, channels: int, parts: int, group_bits: int, first: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x, noise = random.standard_normal((2, rows, channels, parts))
    y = x + np.where(random.random(x.shape) < 0.3, 0.0, noise * 10.0 ** random.integers(-20, 20, x.shape))
    first %= 1 << group_bits
    numbers = (first + np.arange(channels)) >> group_bits
    found = []
    for target in TARGETS:
        kernels.use_target(target)
        sums = ErrorSums(channels, parts, first, 1 << group_bits, int(numbers[-1]) + 1, 0.5)
        assert add(x, y, sums) == x.size
        found.append((sums.sum_xx.tobytes(), sums.sum_dd.tobytes(), sums.counts.tobytes()))
    assert len(set(found)) == 1
    for values, by_group in ((x, sums.sum_xx), (y - x, sums.sum_dd)):
        assert by_group == pytest.approx(np.bincount(numbers, (values**2).sum((0, 2))))
    errors = (y - x)[y != x] / 0.5
    assert sums.counts.tolist() == np.bincount(errors.view(np.int64) >> 52 & 0xFFF, minlength=4096).tolist()


@pytest.mark.parametrize("rms", [5e-324, 1e-310, 1e300, 1.7e308])
def test_errors_are_related_to_the_tiniest_and_the_largest_sizes(rms: float) -> None:
    x = np.zeros(BLOCK)
    y = rms * (np.random.default_rng(0).integers(1, 4, BLOCK) / 4)
    sums = ErrorSums(1, 1, 0, 1, 1, rms)
    add(x, y, sums)
    with np.errstate(all="ignore"):
        expected = np.bincount((y / rms)[y != 0].view(np.int64) >> 52, minlength=4096)
    assert sums.counts.tolist() == expected.tolist()


@pytest.mark.parametrize("value", [nan, inf, -inf, -3.4e38])
@pytest.mark.parametrize("side", [0, 1])
def test_it_stops_before_what_is_not_ordinary(kernels: ctypes.CDLL, value: float, side: int) -> None:
    sides = np.ones((2, 5 * BLOCK))
    sides[side, 3 * BLOCK + 7] = value
    for target in TARGETS:
        kernels.use_target(target)
        sums = ErrorSums(1, 1, 0, 1, 1, 1.0)
        assert add(sides[0], sides[1], sums, lowest=(-3.38e38, -3.38e38)) == 3 * BLOCK
        assert sums.sum_xx.tolist() == [3 * BLOCK] and sums.sum_dd.tolist() == [0.0] and not sums.counts.any()

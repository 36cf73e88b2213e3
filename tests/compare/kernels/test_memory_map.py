"""Stored tensors as memory maps."""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.errors import ShardError
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source


def store(path: Path, values: np.ndarray, offset: int) -> Source:
    path.write_bytes(b"\xff" * offset + values.tobytes())
    return Source(str(path), offset, "float32", values.shape)


@pytest.mark.parametrize("offset", [0, 8, 4_096, 100_001])
def test_elements_are_read_from_an_offset(weird_path, offset):
    values = np.arange(6_000, dtype=np.float32).reshape(2, 3_000)
    stored = open_bits(store(weird_path / "x", values, offset))
    np.testing.assert_array_equal(stored.bits, values.ravel())
    stored.release(0, 6_000)
    np.testing.assert_array_equal(stored.bits, values.ravel())
    assert not stored.bits.flags.writeable


def test_an_empty_tensor_may_lie_at_the_end(tmp_path):
    assert open_bits(store(tmp_path / "x", np.empty((0, 3), np.float32), 8)).bits.size == 0


def test_a_truncated_file_is_named(tmp_path):
    source = store(tmp_path / "x", np.zeros(10, np.float32), 8)
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(47)
    with pytest.raises(ShardError, match=r"x: has 47 bytes, .* ends at byte 48"):
        open_bits(source)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ShardError, match="nothing: No such file"):
        open_bits(Source(str(tmp_path / "nothing"), 0, "float32", (1,)))


def test_a_stored_pair_larger_than_a_window(tmp_path):
    x = np.random.default_rng(0).standard_normal((1_000, 3_000)).astype(np.float32)
    region, whole = Region((0, 500), (1_000, 700)), Region.whole((1_000, 700))
    golden = store(tmp_path / "x", x, 24)
    actual = store(tmp_path / "y", x[:, 500:1_200] + np.float32(0.5), 24)
    stats = read_pair_stats(
        Pair(LabelKey(0, "x", 0), 0, golden, region, actual, whole, (1_000, 3_000), region, "Shard(1)")
    )
    assert (stats.n, stats.rows.index.size) == (700_000, 1_000)
    assert stats.sum_abs_d == pytest.approx(350_000, rel=1e-6)
    assert stats.sum_xx == pytest.approx((x[:, 500:1_200].astype(np.float64) ** 2).sum(), rel=1e-6)

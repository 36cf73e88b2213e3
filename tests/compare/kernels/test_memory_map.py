"""Stored tensors as memory maps."""

import errno
import mmap
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.errors import ShardError
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from tests.processes import PATIENCE


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


def test_a_file_that_cannot_be_mapped_is_named(tmp_path, monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    source = store(tmp_path / "x", np.zeros(10, np.float32), 8)
    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(ShardError, match=r"x: cannot be mapped: .*Cannot allocate memory"):
        open_bits(source)


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


def test_a_file_that_is_cut_while_it_is_read_does_not_end_the_process(tmp_path: Path) -> None:
    """The pages behind its new end raise SIGBUS, which would end the process; here it is an error of that tensor."""
    path, whole = tmp_path / "cut", tmp_path / "whole"
    for each in (path, whole):
        each.write_bytes(np.ones(1 << 20, np.float32).tobytes())
    cut, other = (open_bits(Source(str(each), 0, "float32", (1 << 20,))) for each in (path, whole))
    assert cut.bits[0] == other.bits[0] == 1
    os.truncate(path, 1 << 20)
    threads = [threading.Thread(target=lambda: np.asarray(cut.bits)[1 << 17 :].sum()) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cut.bits[-1] == 0.0
    with pytest.raises(ShardError, match="cut while it was compared"):
        cut.check()
    other.check()
    assert np.asarray(other.bits).sum() == 1 << 20
    for _ in range(10_000):  # guards are free again
        open_bits(Source(str(whole), 0, "float32", (4,))).check()


def test_other_reads_that_fail_still_end_the_process(tmp_path: Path) -> None:
    code = f"""
import mmap, os
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.core.regions import Source
open({str(tmp_path / "f")!r}, "wb").write(bytes(1 << 20))
guarded = open_bits(Source({str(tmp_path / "f")!r}, 0, "float32", (4,)))
pages = mmap.mmap(os.open({str(tmp_path / "f")!r}, os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ)
os.truncate({str(tmp_path / "f")!r}, 4096)
pages[1 << 19]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGBUS, done


def test_a_handler_that_is_installed_later_is_asked_only_about_other_reads(tmp_path: Path) -> None:
    """As Ray's handler is, where a process connects to it after it has read files."""
    code = f"""
import faulthandler, mmap, os
from aclcmp.labeling.errors import ShardError
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.core.regions import Source
source = Source({str(tmp_path / "f")!r}, 0, "float32", (1 << 18,))
open(source.path, "wb").write(bytes(1 << 20))
first = open_bits(source)
faulthandler.enable()
second = open_bits(source)
pages = mmap.mmap(os.open(source.path, os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ)
os.truncate(source.path, 4096)
for each in (first, second):
    assert each.bits[-1] == 0
    try:
        each.check()
    except ShardError as error:
        print(error, flush=True)
pages[1 << 19]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.count("it was cut while it was compared") == 2, done
    assert done.returncode == -signal.SIGBUS and "Fatal Python error: Bus error" in done.stderr, done

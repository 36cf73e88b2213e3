"""Cost of verifying the checksum of all that is compared, and of syncing a shard to disk when it is sealed.

    python benchmarks/bench_checksums.py [FOLDER]

Runs with and without it take turns, and the median of each counts. FOLDER decides which disk is synced. "pairs" is one
process that only reads stored pairs; "comparison" is `aclcmp compare` from its start to the report.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from bench_compare import PAIRS, RANKS, SHAPE, make_run

from aclcmp.labeling.shard.checksum import payload_checksum
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.labeling.shard.sync import BackgroundSync
from aclcmp.orchestrator.compare.kernels import memory_map
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source

ROUNDS = 9
CASES = (("float32", 64), ("bfloat16", 64), ("float32", 4), ("bfloat16", 4), ("bfloat16", 1 / 1024))
"""Element type, and MiB of each tensor."""

COMPARE = """
import sys
from aclcmp.orchestrator.plan.rank_labels import RankLabel
if sys.argv[2] == "without":
    checked = RankLabel.source.fget
    from dataclasses import replace
    RankLabel.source = property(lambda self: replace(checked(self), checksum=None))
from aclcmp.orchestrator.cli.app import run_cli
sys.exit(run_cli(["compare", sys.argv[1]]))
"""


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each function; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def print_times(name: str, seconds: dict[str, float], nbytes: int) -> None:
    """Print both times and their ratio."""
    without, with_it = seconds["without"], seconds["with"]
    speed = nbytes / without / 1e9
    print(f"{name:34}{speed:7.2f} GB/s without{without:8.3f} s   with{with_it:8.3f} s   {with_it / without - 1:+.1%}")


def pairs(folder: Path) -> None:
    """Measure reading stored pairs from the page cache."""
    for dtype, mib in CASES:
        count = 1000 if mib < 1 else int(256 / mib)
        with_it = stored_pairs(folder / "pairs", dtype, int(mib * 2**20), count)
        without = [
            replace(each, golden=replace(each.golden, checksum=None), actual=replace(each.actual, checksum=None))
            for each in with_it
        ]
        runs = {"without": partial(read_all, without), "with": partial(read_all, with_it)}
        nbytes = sum(payload_bytes(each.golden) + payload_bytes(each.actual) for each in with_it)
        name = f"pairs of {dtype}, {mib:g} MiB" if mib >= 1 else f"pairs of {dtype}, 1 KiB"
        print_times(name, medians(runs, ROUNDS), nbytes)


def stored_pairs(path: Path, dtype: str, nbytes: int, count: int) -> list[Pair]:
    """Write `count` pairs of tensors of `nbytes` each side by side into a file, and return the pairs."""
    random = np.random.default_rng(0)
    values = random.standard_normal(nbytes // (4 if dtype == "float32" else 2)).astype(np.float32)
    sides = [values, values * (1 + 1e-3 * random.standard_normal(values.size).astype(np.float32))]
    words = [each.view(np.uint32) for each in sides]
    if dtype == "bfloat16":
        words = [(each >> 16).astype(np.uint16) for each in words]
    bits = [each.view(np.uint8) for each in words]
    with path.open("wb") as file:
        for _ in range(count):
            file.writelines(bits)
    shape = (values.size // 64, 64)
    whole = Region.whole(shape)
    sums = [payload_checksum(each) for each in bits]
    found = []
    for number in range(count):
        golden, actual = (
            Source(str(path), (2 * number + side) * nbytes, dtype, shape, checksum=sums[side]) for side in (0, 1)
        )
        found.append(Pair(LabelKey(0, "x", number), 0, golden, whole, actual, whole, shape, whole, ""))
    return found


def payload_bytes(source: Source) -> int:
    """Return the size of a stored tensor in bytes."""
    return int(np.prod(source.shape)) * DTYPES[source.dtype].itemsize


def read_all(some: list[Pair]) -> None:
    """Compute the statistics of pairs whose checksums have not been verified yet."""
    memory_map._checked.clear()
    for pair in some:
        read_pair_stats(pair)


def comparison(folder: Path) -> None:
    """Measure the comparison of a whole run."""
    run = make_run(folder)

    def compare(how: str) -> Callable[[], object]:
        command = [sys.executable, "-c", COMPARE, str(run), how]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    seconds = medians({"without": compare("without"), "with": compare("with")}, 5)
    print_times("comparison, float32, 4 MiB", seconds, 2 * RANKS * PAIRS * int(np.prod(SHAPE)) * 4)


def sealing(folder: Path) -> None:
    """Measure writing and sealing a shard, with and without waiting until it is on disk."""
    for count, size in ((256, 1 << 20), (20_000, 1 << 10)):
        bits = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        times: dict[str, list[float]] = {"without": [], "with": [], "labels": []}
        for number in range(2 * 5):
            how = ("without", "with")[number % 2]
            place = folder / f"shard{number}"
            place.mkdir()
            writer = ShardWriter(place, ShardHeader("run", 0, 1, 0, 0, "host", 1, 0.0))
            if how == "without":
                writer._sync = _NoSync()
            begun = time.perf_counter()
            for seq in range(count):
                writer.add(LabelRecord(0, f"x{seq}", 0, "pta", seq, 0.0, "f:1", "uint8", (size,), "cpu"), bits)
            written = time.perf_counter()
            writer.close()
            times["labels"].append(written - begun)
            times[how].append(time.perf_counter() - written)
            shutil.rmtree(place)
            os.sync()
        seconds = {name: statistics.median(each) for name, each in times.items()}
        print(f"labels: {count:,} of {size:,} bytes are recorded in {seconds['labels']:.3f} s")
        print_times("sealing that shard", seconds, count * size)


class _NoSync(BackgroundSync):
    def begin(self, path: Path) -> None:
        """Do nothing."""


def main() -> None:
    """Print all three measurements."""
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    load_library()
    try:
        pairs(folder)
        sealing(folder)
        comparison(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Memory of `aclcmp compare`, which compares in its own process, over one label of 4 GiB on each side.

    python benchmarks/bench_compare_memory.py [GIB]

Prints the largest resident memory (RSS) of the process, sampled every 20 ms, for one and for all threads. Bound: 200
MiB, and a window of 4 MiB of both sides for each thread.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from bench_compare import recorded_run

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import save_record

COLUMNS = 4096


def make_run(folder: Path, gib: int) -> Path:
    """Write a run directory of one rank with one label of `gib` GiB of float32 on each side."""
    run = RunDir.create(folder / "run")
    values = np.zeros((gib << 28) // COLUMNS * COLUMNS, np.float32).reshape(-1, COLUMNS)
    random = np.random.default_rng(0)
    for begin in range(0, len(values), 4096):
        values[begin : begin + 64] = random.standard_normal((64, COLUMNS), np.float32)
    writer = ShardWriter(run.shards, ShardHeader(run.run_id, 0, 1, 0, 0, "host", 1, 0.0))
    for seq, side in enumerate(("pta", "acl")):
        record = LabelRecord(0, "large", 0, side, seq, float(seq), "f:1", "float32", values.shape, "cpu")
        writer.add(record, values.reshape(-1).view(np.uint8))
    writer.close()
    save_record(recorded_run(run, ranks=1), run.record)
    return run.root


def peak_of(command: list[str], cores: set[int]) -> int:
    """Run a command on some cores; return its largest resident memory in bytes."""
    peak = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    ) as running:
        while running.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, psutil.Process(running.pid).memory_info().rss)
            time.sleep(0.02)
    assert running.returncode == 0, "the comparison failed"
    return peak


def main() -> None:
    """Print the peaks."""
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aclcmp", "compare", str(make_run(Path(folder), gib))]
        for count in sorted({1, len(cores)}):
            peak = peak_of(command, set(cores[:count])) / 2**20
            bound = 200 + 8 * count
            words = "passes" if peak <= bound else "FAILS"
            print(f"one label of {gib} GiB on each side, {count} threads: {peak:.0f} MiB   bound {bound}: {words}")


if __name__ == "__main__":
    main()

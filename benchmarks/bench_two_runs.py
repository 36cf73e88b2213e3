"""One golden process against an 8-rank tensor-parallel run, by `aclcmp compare GOLDEN ACTUAL`: time and memory.

    python benchmarks/bench_two_runs.py [LABELS] [GIB]

First LABELS (default 200) tensors of 8 MiB each: golden is whole, actual is whole on one rank, then cut by columns over
8 ranks. Prints the ratio of the commands' times, the median of five. Bound: 2. Then one tensor of GIB (default 8) GiB
in the same two runs, and the largest resident memory (RSS) of the command, sampled every 20 ms. Bound: 200 MiB.
"""

import shutil
import statistics
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

RANKS, ROUNDS, COLUMNS = 8, 5, 4096


def make_run(folder: Path, side: str, ranks: int, labels: int, mib: int) -> Path:
    """Write a run directory in which each rank holds its columns of every tensor."""
    run = RunDir.create(folder)
    rows, width = (mib << 18) // COLUMNS, COLUMNS // ranks
    values = np.random.default_rng(0).standard_normal((512, COLUMNS), np.float32)
    for rank in range(ranks):
        local = np.ascontiguousarray(values[:, rank * width : (rank + 1) * width])
        tensor = np.tile(local, (rows // len(values), 1)).reshape(-1).view(np.uint8)
        with_header = ShardHeader(run.run_id, rank, ranks, rank, 0, "host", 1, 0.0)
        writer = ShardWriter(run.shards, with_header)
        for seq in range(labels):
            facts = (0, f"layers.{seq}.act", 0, side, seq, float(seq), "f:1", "float32", (rows, width), "cpu")
            writer.add(LabelRecord(*facts), tensor)
        writer.close()
    save_record(recorded_run(run, ranks), run.record)
    return run.root


def time_command(golden: Path, actual: Path, output: Path) -> tuple[float, int]:
    """Run the command; return its seconds and its largest resident memory in bytes."""
    command = [sys.executable, "-m", "aclcmp", "compare", str(golden), str(actual), "--output", str(output)]
    start = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        while running.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, psutil.Process(running.pid).memory_info().rss)
            time.sleep(0.02)
        assert running.returncode == 0, running.stderr and running.stderr.read().decode()
    seconds = time.perf_counter() - start
    shutil.rmtree(output)
    return seconds, peak


def main() -> None:
    """Print the figures."""
    labels = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    gib = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        golden = make_run(root / "golden", "pta", 1, labels, 8)
        whole, sharded = (make_run(root / f"on{ranks}", "acl", ranks, labels, 8) for ranks in (1, RANKS))
        times: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            pair = [time_command(golden, actual, root / "out")[0] for actual in (whole, sharded)]
            times.append((pair[0], pair[1]))
        ratio = statistics.median(b / a for a, b in times)
        first, second = (statistics.median(each) for each in zip(*times, strict=True))
        print(
            f"{labels} labels of 8 MiB, golden on 1 rank: actual on 1 rank {first:.2f} s, by columns on {RANKS} ranks "
            f"{second:.2f} s: {ratio:.2f} times   (bound 2)"
        )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        golden = make_run(root / "golden", "pta", 1, 1, gib << 10)
        sharded = make_run(root / "sharded", "acl", RANKS, 1, gib << 10)
        seconds, peak = time_command(golden, sharded, root / "out")
        print(
            f"one label of {gib} GiB, golden whole, actual by columns on {RANKS} ranks: {seconds:.1f} s, "
            f"peak RSS {peak / 2**20:.0f} MiB   (bound 200)"
        )


if __name__ == "__main__":
    main()

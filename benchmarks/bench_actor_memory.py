"""Memory of real compare actors while `aclcmp compare` goes over one label of 4 GiB on each side.

    python benchmarks/bench_actor_memory.py [GIB]

Prints the largest resident memory (RSS) of any compare actor, sampled every 20 ms. Bound: 200 MiB.
"""

import subprocess
import sys
import tempfile
import time
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


def main() -> None:
    """Print the peak of each compare actor."""
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), gib)
        command = [sys.executable, "-m", "aclcmp", "compare", str(run)]
        peaks: dict[int, int] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            while running.poll() is None:
                for process in psutil.Process(running.pid).children(recursive=True):
                    try:
                        if process.name().startswith("ray::CompareActo") or "CompareActor" in "".join(
                            process.cmdline()
                        ):
                            peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)
                    except psutil.Error:
                        continue
                time.sleep(0.02)
        assert running.returncode == 0, "the comparison failed"
        assert peaks, "no compare actor was seen"
        listed = ", ".join(f"{peak / 2**20:.0f}" for peak in peaks.values())
        print(f"one label of {gib} GiB on each side: peak RSS of the compare actors {listed} MiB   (bound 200)")


if __name__ == "__main__":
    main()

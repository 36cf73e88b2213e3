"""Memory of a process that compares a pair of large stored tensors.

Makes two sparse files, fills part of them with values, and compares them in a fresh process by memory map. Prints the
largest resident (RSS) and proportional (PSS) memory of that process, interpreter and compiled kernel included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

COLUMNS = 4096


def make_file(path: Path, size: int, seed: int) -> None:
    """Write a sparse file of float32 in which one MiB of every 16 holds values."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for offset in range(0, size, 16 << 20):
            file.seek(offset)
            file.write(rng.standard_normal(1 << 18, dtype=np.float32).tobytes())


def memory_bytes(field: str) -> int:
    """Read a field of this process's memory from the kernel, in bytes."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def compare(golden: Path, actual: Path, columns: slice) -> None:
    """Compare in this process and print the peaks."""
    from aclcmp.orchestrator.compare.pair import Operand, pair_stats
    from aclcmp.orchestrator.core.regions import Region, Source

    shape = (golden.stat().st_size // 4 // COLUMNS, COLUMNS)
    region = Region((0, columns.start), (shape[0], columns.stop - columns.start))
    peaks = {"Rss": 0, "Pss": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for field in peaks:
                peaks[field] = max(peaks[field], memory_bytes(field))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    operands = [Operand.open(Source(str(path), 0, "float32", shape), region) for path in (golden, actual)]
    stats = pair_stats(*operands, shape, region)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(
        f"columns {columns.start}..{columns.stop}: {stats.n:,} pairs in {seconds:.2f} s,"
        f" {8e-9 * stats.n / seconds:.1f} GB/s; peak RSS {int(peak) / 1024:.0f} MiB"
        f" (sampled {peaks['Rss'] / 2**20:.0f}), PSS {peaks['Pss'] / 2**20:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0, help="size of each tensor")
    parser.add_argument("--dir", help="where to make the files (a temporary folder in it)")
    parser.add_argument("--child", nargs=4, metavar=("GOLDEN", "ACTUAL", "START", "STOP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        golden, actual, start, stop = options.child
        compare(Path(golden), Path(actual), slice(int(start), int(stop)))
        return
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        paths = [Path(folder, name) for name in ("golden", "actual")]
        for seed, path in enumerate(paths):
            make_file(path, int(options.gib * 2**30), seed)
        for start, stop in ((0, COLUMNS), (1024, 2048), (7, 8)):
            command = [sys.executable, __file__, "--child", *map(str, paths), str(start), str(stop)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

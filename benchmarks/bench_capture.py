"""Cost of summarising a tensor next to writing it whole, and accuracy of the estimated errors.

Everything runs in one thread. The yardstick is a raw write of the same bytes into a new file, into the page cache;
rounds are interleaved and medians count. Then the estimate of |x - y| is compared with the true value for errors of
several patterns, 60 seeds each.

    python benchmarks/bench_capture.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.summarise import summarise, summarise_rows
from aclcmp.labeling.shard.summary_kernel import summary_library
from aclcmp.labeling.shard.tensor_summary import packed_size
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.summaries import error_bar, stats_of_summaries
from aclcmp.orchestrator.core.stats import Basis

SIZES_MIB = (1, 4, 16, 64)
ROUNDS = 15
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
BAR = 3.0


def raw_write(folder: str | None, bits: npt.NDArray[np.uint8]) -> float:
    """Return the seconds that writing the bytes into a new file takes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        begun = time.perf_counter()
        written = 0
        while written < bits.size:
            written += os.pwrite(file.fileno(), bits[written:], written)
        return time.perf_counter() - begun


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def speeds(folder: str | None) -> None:
    """Print how long a tensor of each type and size is summarised, as a ratio to its raw write."""
    by = "the kernels in C" if summary_library() else "numpy: no library of kernels was found"
    print(f"time to summarise, as a ratio to a raw write (rows of 4,096 values; medians of {ROUNDS}; {by})")
    for dtype, itemsize in ITEMSIZE.items():
        for mib in SIZES_MIB:
            shape = ((mib << 20) // itemsize // 4096, 4096)
            bits = np.random.default_rng(0).integers(0, 63, mib << 20, np.uint8)  # finite in every type
            runs: dict[str, Callable[[], object]] = {
                name: partial(summarise, bits, dtype, shape, sketch=sketch)
                for name, sketch in (("stats", False), ("fingerprint", True))
            }
            runs |= {
                f"{name} of rows": partial(summarise_rows, bits, dtype, shape[0], sketch=sketch)
                for name, sketch in (("stats", False), ("fingerprint", True))
            }
            rounds = [[raw_write(folder, bits), *map(timed, runs.values())] for _ in range(ROUNDS)]
            write, *found = np.median(rounds, axis=0).tolist()
            told = "   ".join(
                f"{name} {seconds / write:5.2f} ({'pass' if seconds <= BAR * write else 'FAIL'})"
                for name, seconds in zip(runs, found, strict=True)
            )
            print(f"  {dtype:9} {mib:3} MiB   write {bits.size / write / 1e9:5.2f} GB/s   {told}   bar {BAR:g}")


def sizes_and_memory() -> None:
    """Print the size of what is kept of a tensor, and the memory that is needed to make it."""
    shape = (4096, 4096)
    bits = np.zeros(4 * 4096 * 4096, np.uint8)
    tracemalloc.start()
    summarise(bits, "float32", shape, sketch=True)
    print(f"work space for {bits.size >> 20} MiB: {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MiB")
    tracemalloc.stop()
    for name, sketch in (("stats", False), ("fingerprint", True)):
        size = packed_size(shape, sketch)
        print(f"kept of float32 {shape} with {name}: {size:,} bytes, 1/{bits.size // size:,} of the tensor")


def accuracy() -> None:
    """Print estimated errors as ratios to the true ones."""
    shape = (64, 4096)
    errors: dict[str, Callable[[np.random.Generator], npt.NDArray[np.float32]]] = {
        "spread": lambda rng: rng.standard_normal(shape, np.float32) * np.float32(1e-3),
        "one row": lambda rng: np.eye(64, dtype=np.float32)[:, :1] * rng.standard_normal((1, 4096), np.float32),
        "one column": lambda rng: rng.standard_normal((64, 1), np.float32) * np.eye(1, 4096, 9, dtype=np.float32),
        "constant": lambda rng: np.full(shape, rng.standard_normal(), np.float32),
    }
    bar = error_bar(Basis.FINGERPRINT)
    assert bar is not None
    print(f"estimated |x - y| / true, 60 seeds (promised: 1 +- {bar / 2:.3f} at most, one standard deviation)")
    for name, error in errors.items():
        ratios = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            x = rng.standard_normal(shape, np.float32)
            y = x + error(rng)
            x_side, y_side = (summarise(a.reshape(-1).view(np.uint8), "float32", shape, sketch=True) for a in (x, y))
            stats = stats_of_summaries(x_side, y_side, "float32", "float32")
            ratios.append(np.sqrt(stats.sum_dd / np.square(y.astype(np.float64) - x).sum()))
        print(f"  {name:12} mean {np.mean(ratios):.4f}, standard deviation {np.std(ratios):.4f}")


def main() -> None:
    """Print speeds, sizes, work space and accuracy."""
    load_library()
    speeds(sys.argv[1] if len(sys.argv) > 1 else None)
    sizes_and_memory()
    accuracy()


if __name__ == "__main__":
    main()

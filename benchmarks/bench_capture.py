"""Cost of summarising a tensor next to writing it whole, and accuracy of the estimated errors.

Everything runs in one thread. A raw write to a file (into the page cache) and blake2b alone over the same bytes are the
yardsticks; rounds are interleaved and the best of each counts. Then the estimate of |x - y| is compared with the true
value for errors of several patterns, 60 seeds each.

    python benchmarks/bench_capture.py [FOLDER]
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import IO

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.tensor_summary import packed_size, summarise
from aclcmp.orchestrator.compare.summaries import error_bar, stats_of_summaries
from aclcmp.orchestrator.core.stats import Basis

MIB = 64
ROUNDS = 7
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float64": 8, "int64": 8}


def overwriting(file: IO[bytes], bits: npt.NDArray[np.uint8]) -> Callable[[], object]:
    """Return a function that writes the bytes over a file of their size, as a recorder of whole tensors does."""

    def write() -> None:
        view = memoryview(bits)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        while view:
            view = view[os.write(file.fileno(), view) :]

    return write


def best_seconds(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the shortest time of each function over interleaved rounds."""
    best = dict.fromkeys(runs, np.inf)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def speeds(file: IO[bytes]) -> None:
    """Print how fast a tensor of each type is written, hashed and summarised."""
    print(f"{MIB} MiB, rows of 4,096 values: GB/s, and time as a ratio to a raw write / to blake2b alone")
    for dtype, itemsize in ITEMSIZE.items():
        shape = ((MIB << 20) // itemsize // 4096, 4096)
        if dtype == "float32":
            values = np.random.default_rng(0).standard_normal(shape, np.float32)
            bits = values.reshape(-1).view(np.uint8)
        else:
            bits = np.random.default_rng(0).integers(0, 63, MIB << 20, np.uint8)  # finite in every type
        best = best_seconds(
            {
                "raw write": overwriting(file, bits),
                "blake2b": partial(hashlib.blake2b, bits, digest_size=16),
                "stats": partial(summarise, bits, dtype, shape, sketch=False),
                "fingerprint": partial(summarise, bits, dtype, shape, sketch=True),
            }
        )
        for name, seconds in best.items():
            ratios = seconds / best["raw write"], seconds / best["blake2b"]
            speed = bits.size / seconds / 1e9
            print(f"  {dtype:14} {name:12} {speed:6.2f} GB/s   {ratios[0]:5.2f}   {ratios[1]:5.2f}")


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
    with tempfile.TemporaryFile(dir=sys.argv[1] if len(sys.argv) > 1 else None) as file:
        speeds(file)
    sizes_and_memory()
    accuracy()


if __name__ == "__main__":
    main()

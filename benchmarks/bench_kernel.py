"""Speed of one thread that compares a pair, next to numpy.dot over the same two float32 arrays.

All statistics are computed, row sums too. Rounds are interleaved and the best of each counts. Prints elements per
second as a ratio to numpy.dot, with the bars that some must reach, and the time of a fresh process that loads the
kernels. `--target 1` measures the code for CPUs with AVX2 but no AVX-512, `--target 0` that for any CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.regions import Region

Array = npt.NDArray[np.generic]
BARS = {
    "float32, rows of 4096": 0.42,  # that of the kernels before, which numba compiled
    "bfloat16, rows of 4096": 0.45,
    "float16, rows of 4096": 0.40,
    "float32, columns 1024-2047 of 4096": 0.35,
    "float32, columns 512-1023 of 4096": 0.35,
    "float32, 3 fused parts of 512 columns": 0.30,
}
"""Least elements per second, as a ratio to those of numpy.dot in float32."""


def bfloat16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to bfloat16 bits."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def comparison(x: Array, y: Array, dtype: str, shape: tuple[int, ...]) -> Callable[[], object]:
    """Return a function that compares two flat arrays of `shape` in full."""
    region = Region.whole(shape)
    return lambda: pair_stats(Operand(x, dtype, shape, region), Operand(y, dtype, shape, region), shape, region)


def column_comparison(x: Array, y: Array, shape: tuple[int, int], start: int, stop: int) -> Callable[[], object]:
    """Return a function that compares columns of a float32 golden tensor with an actual one of just these columns."""
    region = Region((0, start), (shape[0], stop - start))
    piece = np.ascontiguousarray(y.reshape(shape)[:, start:stop]).ravel()
    golden = Operand(x, "float32", shape, region)
    actual = Operand(piece, "float32", region.shape, Region.whole(region.shape))
    return lambda: pair_stats(golden, actual, shape, region)


def fused_comparison(x: Array, y: Array, shape: tuple[int, int], width: int) -> Callable[[], object]:
    """Return a function that compares one rank's tensor, parts of `width` columns of each third, with the whole."""
    third = shape[1] // 3
    whole = y.reshape(shape)
    local = np.concatenate([whole[:, part * third :][:, :width] for part in range(3)], axis=1)

    def compare() -> None:
        for part in range(3):
            region, place = Region((0, part * third), (shape[0], width)), Region((0, part * width), (shape[0], width))
            golden = Operand(x, "float32", shape, region)
            pair_stats(golden, Operand(local.ravel(), "float32", local.shape, place), shape, region)

    return compare


def separate_calls(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], width: int) -> object:
    """Compute the same numbers by separate numpy calls, in float32 with float64 sums."""
    d = y - x
    absolute, size = np.abs(d), np.abs(x)
    wide = np.float64
    xi, yi = x.view(np.int32).astype(np.int64), y.view(np.int32).astype(np.int64)
    xi, yi = np.where(xi < 0, -(xi & 0x7FFFFFFF), xi), np.where(yi < 0, -(yi & 0x7FFFFFFF), yi)
    ratio = np.divide(absolute, size, out=np.zeros_like(d), where=size != 0)
    return (
        np.count_nonzero(x.view(np.int32) == y.view(np.int32)),
        [np.count_nonzero(test(side)) for side in (x, y) for test in (np.isnan, np.isposinf, np.isneginf)],
        [np.sum(part, dtype=wide) for part in (x, y, x * x, y * y, x * y, d, d * d, absolute, ratio)],
        [x.min(), x.max(), y.min(), y.max(), absolute.max(), absolute.argmax(), ratio.max(), np.abs(xi - yi).max()],
        [np.count_nonzero(absolute > limit) for limit in (1e-3 * size, 5e-3 * size, 1e-5 + 1.3e-6 * size)],
        [np.sum((part * part).reshape(-1, width), axis=1, dtype=wide) for part in (x, d)],
    )


def startup_seconds() -> tuple[float, float]:
    """Return the seconds that a fresh process takes for imports, and for its first comparison (kernels loaded)."""
    script = (
        "import time; t = time.perf_counter()\n"
        "from aclcmp.orchestrator.compare.pair import Operand, pair_stats, Region\n"
        "import numpy as np\n"
        "u = time.perf_counter(); r = Region.whole((9,)); o = Operand(np.ones(9, np.float32), 'float32', (9,), r)\n"
        "pair_stats(o, o, (9,), r); print(u - t, time.perf_counter() - u)"
    )
    best = (np.inf, np.inf)
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        imports, first = map(float, done.stdout.split())
        best = min(best, (imports, first), key=sum)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=64, help="size of each float32 array")
    parser.add_argument("--target", type=int, default=2)
    options = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when numpy is loaded: start again with it set
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **threads})

    n = options.mib << 18
    rng = np.random.default_rng(0)
    x = rng.standard_normal(n, dtype=np.float32)
    y = x + np.float32(1e-3) * rng.standard_normal(n, dtype=np.float32)
    x16, y16 = x.astype(np.float16), y.astype(np.float16)
    xb, yb = bfloat16(x), bfloat16(y)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    xn, yn = x.copy(), y.copy()
    xn[:: 1 << 14] = yn[:: 1 << 14] = np.nan
    rows = (n // 4096, 4096)
    fused = (n // 12288, 12288)
    print(f"target {load_library().use_target(options.target)}")
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "numpy.dot float32": (n, lambda: np.dot(x, y)),
        "float32, rows of 4096": (n, comparison(x, y, "float32", rows)),
        "bfloat16, rows of 4096": (n, comparison(xb, yb, "bfloat16", rows)),
        "float16, rows of 4096": (n, comparison(x16, y16, "float16", rows)),
        "float64, rows of 4096": (n, comparison(x64, y64, "float64", rows)),
        "float32, equal": (n, comparison(x, x.copy(), "float32", rows)),
        "float32, 1 of 8 blocks with NaN": (n, comparison(xn, yn, "float32", rows)),
        "float32, rows of 64": (n, comparison(x, y, "float32", (n // 64, 64))),
        "float32, rows of 1": (n, comparison(x, y, "float32", (n, 1))),
        "float32, columns 1024-2047 of 4096": (n // 4, column_comparison(x, y, rows, 1024, 2048)),
        "float32, columns 512-1023 of 4096": (n // 8, column_comparison(x, y, rows, 512, 1024)),
        "float32, 3 fused parts of 512 columns": (
            fused[0] * 1536,
            fused_comparison(x[: fused[0] * 12288], y[: fused[0] * 12288], fused, 512),
        ),
        "float32, columns 128-255 of 4096": (n // 32, column_comparison(x, y, rows, 128, 256)),
        "float32, columns 8-15 of 64": (n // 8, column_comparison(x, y, (n // 64, 64), 8, 16)),
        "float32, column 3 of 64": (n // 64, column_comparison(x, y, (n // 64, 64), 3, 4)),
        "separate numpy calls float32": (n, lambda: separate_calls(x, y, 4096)),
    }
    best = dict.fromkeys(runs, np.inf)
    for run in runs.values():
        run[1]()
    for _ in range(options.rounds):
        for name, (_, run) in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)

    dot = best["numpy.dot float32"] / n
    print(f"{'':36} {'ns/element':>10} {'x dot':>7}   ({options.mib} MiB arrays, best of {options.rounds})")
    for name, (count, _) in runs.items():
        each = best[name] / count
        bar = BARS.get(name, 0.0)
        verdict = f"   {'passes' if dot / each >= bar else 'FAILS'}, bar {bar:.2f}" if bar else ""
        print(f"{name:38} {each * 1e9:8.3f} {dot / each:7.3f}{verdict}")
    fused, separate = best["float32, rows of 4096"], best["separate numpy calls float32"]
    print(
        f"numpy.dot: {8e-9 / dot:.1f} GB/s; fused float32: {8e-9 * n / fused:.1f} GB/s, {separate / fused:.1f} x numpy"
    )
    imports, first = startup_seconds()
    print(f"fresh process: imports {imports:.3f} s, kernels loaded and first comparison {first:.4f} s")


if __name__ == "__main__":
    main()

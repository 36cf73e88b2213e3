"""Cost of a label: off, on, for large tensors next to a raw file write of the same bytes, and among many labels.

    python benchmarks/bench_labels.py

Every figure is a median (the last 40 chunks of 50 labels, of three processes), and what is compared takes turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

MIB = 1 << 20

ON = """
import os, statistics, sys, time
from pathlib import Path
import torch
from aclcmp import set_label
from aclcmp.labeling import api

folder, kind = Path(os.environ["ACLCMP_SHARD_DIR"]), sys.argv[1]
set_label("pta", "warm", torch.zeros(1))
if kind == "small":
    x = torch.randn(256)
    for count in (200, 20_000):
        chunks = []
        for chunk in range(count // 50):
            begun = time.perf_counter()
            for n in range(50):
                set_label("pta", f"layers.{chunk}.{n}.mlp.{count}", x)
            chunks.append((time.perf_counter() - begun) / 50 * 1e3)
        print(statistics.median(chunks[-40:]))
    begun = time.perf_counter()
    api._recorder.close()
    print((time.perf_counter() - begun) / 20_200 * 1e3)
else:
    tensors = [torch.randn(1 << 20) for _ in range(8)]
    arrays = [memoryview(t.clone().numpy()).cast("B") for t in tensors]
    ours, raw = [], []
    with open(folder / "raw", "wb", buffering=0) as file:
        for n in range(64):  # in turns, so that both see the same machine; on other bytes, so that neither is warm
            begun = time.perf_counter()
            set_label("pta", f"layers.{n}.mlp", tensors[n % 8])
            middle = time.perf_counter()
            file.write(arrays[n % 8])
            ours.append(4 / (middle - begun))
            raw.append(4 / (time.perf_counter() - middle))
    print(statistics.median(ours))
    print(statistics.median(raw))
"""


def label_figures(kind: str) -> list[float]:
    """Label in a process of its own, into a fresh folder; return the figures that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"ACLCMP_SHARD_DIR": folder, "RANK": "0", "WORLD_SIZE": "1"}
        done = subprocess.run([sys.executable, "-c", ON, kind], env=environ, check=True, capture_output=True, text=True)
        assert list(Path(folder).glob("*.h5")), "nothing was recorded"
        return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Print all figures with their bounds."""
    from aclcmp import set_label

    assert "ACLCMP_SHARD_DIR" not in os.environ
    rounds = timeit.repeat(lambda: [set_label("pta", "x", None) for _ in range(100_000)], number=1, repeat=7)
    print(f"set_label, off                 {min(rounds) / 100_000 * 1e6:7.3f} us   (bound 0.3)")
    small = [label_figures("small") for _ in range(3)]
    few, many, seal = (statistics.median(column) for column in zip(*small, strict=True))
    print(f"set_label, 1 KiB, 200 labels   {few:7.3f} ms   (bound 0.15)")
    print(f"set_label, 1 KiB, 20,000       {many:7.3f} ms   ratio to 200: {many / few:.2f}   (bound 1)")
    print(f"sealing at exit, per label     {seal:7.3f} ms")
    large = [label_figures("large") for _ in range(5)]
    ratios = [ours / raw for ours, raw in large]
    ours, raw = (statistics.median(column) for column in zip(*large, strict=True))
    print(f"set_label, 4 MiB               {ours:7.0f} MiB/s")
    print(f"raw file write, 4 MiB          {raw:7.0f} MiB/s   ratio: {statistics.median(ratios):.2f}   (bound 0.5)")


if __name__ == "__main__":
    begun = time.perf_counter()
    main()
    print(f"({time.perf_counter() - begun:.0f} s)")

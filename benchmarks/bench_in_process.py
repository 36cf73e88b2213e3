"""Cost of comparing in a process: two large tensors beside numpy and torch, small ones, and many at once.

    python benchmarks/bench_in_process.py [--rounds 5]

Times are CPU time of all threads, medians after a first call, in ms; what is compared takes turns. Memory is what a
call adds to the process at most, beside the pages of files, which the system can drop.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import aclcmp

_IMPORTS = """
import time
import aclcmp, numpy
begun = time.process_time()
aclcmp.compare(numpy.ones(4), numpy.ones(4))
print(1e3 * (time.process_time() - begun))
"""


def median_times(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each call in ms; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            if number:
                times[name].append(1e3 * (time.process_time() - begun))
    return {name: statistics.median(each) for name, each in times.items()}


def anonymous_mib() -> float:
    """Return the memory of this process beside the pages of files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def most_memory(call: Callable[[], object]) -> float:
    """Return how many MiB a call adds at most."""
    before, most, done = anonymous_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, anonymous_mib() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return most


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    golden = torch.randn(4096, 4096)
    actual = golden * (1 + 1e-7 * torch.randn(4096, 4096))
    first, second = golden.numpy(), actual.numpy()
    small = torch.randn(64, 64)
    many = {f"layers.{number}.weight": torch.randn(16) for number in range(10_000)}
    calls: dict[str, Callable[[], object]] = {
        "aclcmp.compare": lambda: aclcmp.compare(golden, actual),
        "numpy.testing.assert_allclose": lambda: np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5),
        "torch.testing.assert_close": lambda: torch.testing.assert_close(golden, actual, rtol=1e-3, atol=1e-5),
    }
    print("two float32 tensors of 4096 x 4096 (64 MiB each)")
    for name, each in median_times(calls, rounds).items():
        print(f"  {name:30} {each:7.0f} ms, {most_memory(calls[name]):5.0f} MiB")
    few = median_times({"small": lambda: aclcmp.compare(small, small)}, 4 * rounds)
    print(f"two tensors of 64 x 64, ms       {few['small']:7.1f}")
    all_of_them = median_times({"many": lambda: aclcmp.compare(many, many)}, 1)
    print(f"two dicts of 10,000 tensors, ms  {all_of_them['many']:7.0f}")
    done = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True)
    print(f"first comparison of a process    {float(done.stdout):7.0f}")


if __name__ == "__main__":
    main()

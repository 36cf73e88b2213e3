"""Compare the same data on one host and spread over two, each host with one core of its own; print the ratio.

    python benchmarks/bench_two_nodes.py [ROUNDS]

The hosts are network namespaces of this machine (root is needed), Ray on each is pinned to a core. Only the comparison
is timed, with the actors started and the files in the page cache; rounds on one host and on two take turns.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aclcmp.orchestrator.compare.actors.comparison import compare_pairs

ROOT = Path(__file__).resolve().parents[1]
RANKS, TENSORS, TIMES, SHAPE = 4, 4, 6, (4096, 2048)
"""Ranks, pairs of tensors of a rank, comparisons of each pair in a round, and the shape of a tensor (32 MiB)."""


def main() -> None:
    """Make the hosts and their files, and measure on the first of them."""
    sys.path.insert(0, str(ROOT))
    from tests.netns import hosts

    rounds = sys.argv[1] if len(sys.argv) > 1 else "7"
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("needs two cores")
    print(f"load before: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, hosts(Path(folder)) as made:
        for host in made:
            write(host.files)
        for number, (host, core) in enumerate(zip(made, cores, strict=True)):
            where = "--address=10.77.0.1:6379" if number else "--head --port=6379 --include-dashboard=false"
            options = f"--node-ip-address={host.ip} --num-cpus=1 --object-store-memory=200000000 --disable-usage-stats"
            command = ["taskset", "-c", str(core), "ray", "start", *where.split(), *options.split()]
            done = host.run(*command)
            assert done.code == 0, done
        here = ["taskset", "-c", str(cores[0]), sys.executable, __file__, "--inside", rounds]
        done = made[0].run(*here, timeout=1200)
        print(done.out, end="")
        if done.code:
            sys.exit(done.err)
    print(f"load after: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def write(folder: Path) -> None:
    """Write each rank's tensors; both hosts get all, so that either can compare them."""
    random = np.random.default_rng(0)
    golden = random.standard_normal(SHAPE).astype(np.float32)
    actual = golden * np.float32(1.0001)
    for rank in range(RANKS):
        for number in range(TENSORS):
            (folder / f"{rank}.{number}").write_bytes(golden.tobytes() + actual.tobytes())


def measure(rounds: int) -> None:
    """Measure the comparison of all pairs as if they lay on one host, and as if half of them lay on the other."""
    from aclcmp.orchestrator.cluster.cluster import Cluster
    from aclcmp.orchestrator.cluster.file_locations import FileLocations
    from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
    from aclcmp.orchestrator.compare.schedule import pair_bytes
    from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
    from aclcmp.orchestrator.core.stats import PairStats

    whole, offset = Region.whole(SHAPE), int(np.prod(SHAPE)) * 4
    pairs = []
    for rank in range(RANKS):
        for number in range(TENSORS * TIMES):
            path = str(Path.cwd() / f"{rank}.{number % TENSORS}")
            golden, actual = (Source(path, at, "float32", SHAPE, rank=rank) for at in (0, offset))
            key = LabelKey(0, f"x{number}", 0)
            pairs.append(Pair(key, rank, golden, whole, actual, whole, SHAPE, whole, "same shape"))
    nbytes = sum(map(pair_bytes, pairs))
    with Cluster.open("10.77.0.1:6379") as cluster:
        first, second = (node.node_id for node in cluster.nodes)
        pool = ActorPool(cluster.nodes)
        ways = {
            "one": FileLocations(first),
            "two": FileLocations(first, {rank: second for rank in range(RANKS // 2, RANKS)}),
            "other": FileLocations(second),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, places in ways.items():
                begun = time.perf_counter()
                outcomes = compare_pairs(pool, pairs, places, lambda *_: None)
                taken[name].append(time.perf_counter() - begun)
                assert all(isinstance(outcome, PairStats) for outcome in outcomes.values())
            if number:
                one, two, other = (taken[name][-1] for name in ways)
                times = f"one host {one:.2f} s, the other {other:.2f} s, both {two:.2f} s"
                print(f"round {number}: {times}: x {one / two:.2f}")
    for name, of in (("median", statistics.median), ("best", min)):  # other load slows both, two hosts twice
        one, two = (of(taken[way][1:]) for way in ("one", "two"))
        speeds = [f"{seconds:.2f} s ({nbytes / seconds / 1e9:.1f} GB/s)" for seconds in (one, two)]
        print(f"{nbytes / 1e9:.1f} GB, {name}: one host {speeds[0]}, two {speeds[1]}: x {one / two:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        measure(int(sys.argv[2]))
    else:
        main()

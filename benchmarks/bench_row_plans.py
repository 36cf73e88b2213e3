"""Time and memory of planning labels whose rows have names, from indices that are made in memory.

    python benchmarks/bench_row_plans.py [LABELS STEPS]

Eight requests are decoded on 4 ranks: each label is recorded once for each step on each rank, with 8 rows, and golden
has each request in one forward. Sizes run in a process each; CPU time is told too. Bars for 300 labels and 2,000 steps:
10 s, and 1 GiB beside the indices.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.plan.planner import plan_two

REQUESTS, RANKS, HIDDEN = 8, 4, 512
BAR_SECONDS, BAR_MIB = 10, 1024


def index_of(rank: int, ranks: int, side: str, labels: int, tables: list[np.ndarray]) -> ShardIndex:
    """Return an index in which each label is recorded once for each table of rows."""
    requests = {number: (0, f"request {number}") for number in range(REQUESTS)}
    records: list[LabelRecord] = []
    rows: dict[int, RowTable] = {}
    seq = 0
    for occurrence, numbers in enumerate(tables):
        table, seq = seq, seq + 1
        rows[table] = RowTable(numbers, requests, {})
        for label in range(labels):
            facts = {"offset": 4096 * seq, "nbytes": len(numbers) * HIDDEN * 4, "checksum": seq, "rows": table}
            place = (0, f"layers.{label}", occurrence, side, seq, seq * 1e-3, "run.py:1", "float32")
            records.append(LabelRecord(*place, (len(numbers), HIDDEN), "cpu", **facts))
            seq += 1
    header = ShardHeader("run", rank, ranks, rank, 0, "host", 1, 0.0)
    return ShardIndex(ShardFiles(Path("/runs/run/shards"), rank, 0), header, tuple(records), rows=rows)


def measure(labels: int, steps: int) -> None:
    """Plan in this process and print the figures."""
    tokens = np.random.default_rng(0).integers(0, 50_000, (steps, REQUESTS))
    number = np.arange(REQUESTS)
    decode = [
        np.stack([number, np.full(REQUESTS, step), tokens[step]], axis=1).astype(np.int32) for step in range(steps)
    ]
    whole = [
        np.stack([np.full(steps, request), np.arange(steps), tokens[:, request]], axis=1).astype(np.int32)
        for request in range(REQUESTS)
    ]
    golden = [index_of(0, 1, "pta", labels, whole)]
    actual = [index_of(rank, RANKS, "acl", labels, decode) for rank in range(RANKS)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun, begun_cpu = time.perf_counter(), time.process_time()
    plan = plan_two(golden, actual, RANKS)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert len(plan.pairs) == labels * RANKS and not plan.gaps
    print(
        f"{labels:4} labels x {steps:,} steps x {REQUESTS} requests on {RANKS} ranks: {seconds:6.2f} s, "
        f"{cpu:.2f} s of CPU, {1e3 * cpu / labels:.2f} ms of it a label; "
        f"peak {peak:,.0f} MiB, {before:,.0f} of it the indices",
        flush=True,
    )
    if (labels, steps) == (300, 2000):
        told = ["pass" if good else "FAIL" for good in (cpu <= BAR_SECONDS, peak - before <= BAR_MIB)]
        print(f"     {BAR_SECONDS} s: {told[0]}; {BAR_MIB} MiB beside the indices: {told[1]}")


def main() -> None:
    """Print the figures of several sizes."""
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]), int(sys.argv[2]))
        return
    for labels, steps in ((100, 1000), (100, 2000), (300, 1000), (300, 2000)):
        subprocess.run([sys.executable, __file__, str(labels), str(steps)], check=True)


if __name__ == "__main__":
    main()

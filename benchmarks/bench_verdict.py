"""Time of `aclcmp verdict` on 10,000 labels, which judges again from the report alone, and of each of its steps.

    python benchmarks/bench_verdict.py [--labels 10000] [--ranks 1]

The report is made up: labels of a decoder with errors that grow with depth, and a fault in the middle. The ratio is to
one read of the same table by h5py alone.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence, RankEvidence
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey, Region
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.stored_reports import evidence_of_report
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5

KINDS = ("norm", "attn.q", "attn.k", "attn.v", "attn.out", "mlp.gate", "mlp.up", "mlp.act", "mlp.out", "out")


def evidence(labels: int, ranks: int) -> Evidence:
    """Return labels of a decoder with real statistics of small tensors."""
    random = np.random.default_rng(0)
    x = random.standard_normal((16, 32)).astype(np.float32)
    noise = random.standard_normal(x.shape)
    region = Region.whole(x.shape)
    facts = SideFacts("/tasks/0/x", "float32", x.shape, "cpu", "modeling.py:212", 0, 0.0)
    found = []
    for number in range(labels):
        layer, kind = divmod(number, len(KINDS))
        error = 1e-6 * (1 + layer) ** 0.3 if number < labels // 2 else 0.3
        y = (x + error * noise).astype(np.float32)
        sides = [Operand(each.ravel(), "float32", x.shape, region) for each in (x, y)]
        stats = pair_stats(sides[0], sides[1], x.shape, region)
        one = RankEvidence(
            rank=0,
            golden=facts,
            actual=facts,
            layout="same shape",
            stats=stats,
            metrics=metrics_of(stats),
            dtypes=("float32", "float32"),
        )
        key = LabelKey(0, f"layers.{layer}.{KINDS[kind]}", 0)
        each = tuple(replace(one, rank=rank) for rank in range(ranks))
        found.append(LabelEvidence(key, level_of(key.label, "", ""), each))
    return Evidence(tuple(found))


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    load_library()
    made = evidence(options.labels, options.ranks)
    policy = Policy()

    def print_time(what: str, work: Callable[[], object], runs: int = 3) -> float:
        best = math.inf
        for _ in range(runs):
            start = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - start)
        print(f"{what:44} {best:6.2f} s")
        return best

    with TemporaryDirectory() as folder:
        path = Path(folder) / "report.h5"
        write_h5(Report(None, "run", judge_evidence(made, policy), policy.table()), path)
        print(f"{options.labels:,} labels x {options.ranks} ranks, report.h5 of {path.stat().st_size / 1e6:.1f} MB")

        def raw() -> None:
            with h5py.File(path) as file:
                file["labels"][:]

        alone = print_time("h5py reads the table", raw)
        read = print_time("the report is read back", lambda: read_h5(path, None))
        kept = evidence_of_report(read_h5(path, None))
        judging = print_time("it is judged", lambda: judge_evidence(kept, policy))
        command = [sys.executable, "-m", "aclcmp", "verdict", folder]
        print_time("`aclcmp verdict`, from start to exit", lambda: subprocess.run(command, capture_output=True))
        print_time(
            "`aclcmp --version`, the same", lambda: subprocess.run([*command[:3], "--version"], capture_output=True)
        )
        print(f"reading back and judging: {(read + judging) / alone:.1f} times reading the table")


if __name__ == "__main__":
    main()

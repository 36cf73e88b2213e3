"""Time of the second look as a share of the time of comparing, on a run of which about half of the labels drift.

    python benchmarks/bench_second_look.py [--before TREE]

2 ranks with 100 labels of 2^20 elements each; one label of rank 1 is twice golden's. With `--before`, the source tree
of another version compares the same run in between. "In 30 %" is without the work that is done whatever the clock says,
which at this size is most. Prints medians of five rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_compare import recorded_run
from bench_kernel import bfloat16

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import save_record

RANKS, LABELS, SHAPE = 2, 100, (256, 4096)
DRIFT = {"float32": 1e-4, "bfloat16": 4e-2}
"""Relative error between the limits of warning and of failure."""
TREE = Path(__file__).resolve().parent.parent

CHILD = """
import json, sys, time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.compare.local_comparer import LocalComparer

spent = Counter()

def timed(name):
    method = getattr(LocalComparer, name)
    def call(*args):
        begun = time.perf_counter()
        found = method(*args)
        spent[name] += time.perf_counter() - begun
        if name == "look_again":
            spent["looks"] += sum(not isinstance(look, str) for look in found.values())
        elif "first" not in spent:
            spent["first"] = spent[name]
        return found
    setattr(LocalComparer, name, call)

timed("compare_pairs"), timed("look_again")
options = sys.argv[1:]
if "in share" in options:
    from aclcmp.orchestrator.compare import second_look_parts
    second_look_parts.FREE_SECONDS = 0.0
    options.remove("in share")
with redirect_stdout(StringIO()) as out:
    run_cli(["compare", *options, "--json"])
report = json.loads(out.getvalue())
spent["drift"] = sum(rank["status"] == "drift" for label in report["labels"] for rank in label["ranks"].values())
spent["hints"] = len(report["hints"])
print(json.dumps(spent))
"""


def make_run(folder: Path, dtype: str) -> Path:
    """Write a run directory in which every second label drifts."""
    run = RunDir.create(folder / dtype)
    random = np.random.default_rng(0)
    x, noise = (random.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
    tensors = {"golden": x, "drift": x + np.float32(DRIFT[dtype]) * noise, "twice": 2 * x}
    stored = {name: _bits(values, dtype) for name, values in tensors.items()}
    for rank in range(RANKS):
        writer = ShardWriter(run.shards, ShardHeader(run.run_id, rank, RANKS, rank, 0, "host", 1, 0.0))
        for number in range(LABELS):
            is_wrong = rank == 1 and number == LABELS // 2
            actual = "twice" if is_wrong else "drift" if number % 2 else "golden"
            for seq, (side, name) in enumerate((("pta", "golden"), ("acl", actual)), 2 * number):
                record = LabelRecord(0, f"x{number}", 0, side, seq, float(seq), "f:1", dtype, SHAPE, "cpu")
                writer.add(record, stored[name])
        writer.close()
    save_record(recorded_run(run, RANKS), run.record)
    return run.root


def _bits(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint8]:
    stored = bfloat16(values) if dtype == "bfloat16" else values
    return stored.reshape(-1).view(np.uint8)


def seconds(tree: Path, run: Path, *options: str) -> dict[str, float]:
    """Compare a run by the version in a source tree; return where the time went, and counts."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(run), *options]
    done = subprocess.run(command, cwd=run, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="source tree of another version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    ways: dict[str, tuple[Path, tuple[str, ...]]] = (
        {"before": (options.before.absolute(), ())} if options.before else {}
    )
    ways |= {"by default": (TREE, ()), "in 30 %": (TREE, ("in share",)), "all": (TREE, ("--second-look", "all"))}
    print(f"{'':28} {'compare':>9} {'second look':>12} {'share':>7} {'looks':>6} {'drift':>6} {'hints':>6}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for dtype in DRIFT:
            run = make_run(Path(folder), dtype)
            found = {name: [seconds(tree, run, *more)] for name, (tree, more) in ways.items()}
            for _ in range(options.rounds):
                for name, (tree, more) in ways.items():
                    found[name].append(seconds(tree, run, *more))
            for name, (_, *rounds) in found.items():
                first, look = (statistics.median(each[part] for each in rounds) for part in ("first", "look_again"))
                share = statistics.median(each["look_again"] / each["first"] for each in rounds)
                counts = " ".join(f"{int(rounds[0][part]):6}" for part in ("looks", "drift", "hints"))
                print(f"{dtype + ', ' + name:28} {first:7.2f} s {look:10.2f} s {share:7.0%} {counts}", flush=True)


if __name__ == "__main__":
    main()

"""Compare 2 ranks x 200 pairs of 4 MiB float32 (3.36 GB), from command to report, and say where the time goes.

    python benchmarks/bench_compare.py [FOLDER]

The same data through numpy's float64 calls, in this run on the same machine, is the yardstick.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_reader import read_label
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.orchestrator.core.run_record import RankRecord, RankState, RunRecord
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import save_record

RANKS, PAIRS, SHAPE = 2, 200, (1024, 1024)

STAGES = """
import sys, time
begun = time.perf_counter()
def lap(name):
    global begun
    now = time.perf_counter()
    print(f"{name:34}{now - begun:6.2f} s")
    begun = now
from pathlib import Path
import aclcmp.orchestrator.cli.app
from aclcmp.orchestrator.pipeline.answer import answer
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, Workers, plan_local_run
from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.report.files import write_reports
from aclcmp.orchestrator.terminal.console import report_console
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.terminal.screen import Screen
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
lap("imports")
run, record = open_run(Path(sys.argv[1]))
screen = Screen(report_console(open("/dev/null", "w")))
plan = plan_local_run(run, record, screen, LayoutRules())
lap("read 2 shards, plan 400 pairs")
cluster = Cluster.open()
lap("start Ray")
pool = ActorPool(cluster.nodes)
pool.read_indices(run, {cluster.driver_node_id: frozenset({0})})
lap("start compare actors")
report = answer(ComparedRun(run, record), plan, Workers(cluster, pool, screen), JudgingOptions(Policy()))
lap("compare and judge")
write_reports(report, run)
lap("write the reports")
cluster.close()
lap("stop Ray")
"""


def make_run(folder: Path) -> Path:
    """Write a run directory with both sides of all labels; the actual side has round-off noise."""
    run = RunDir.create(folder / "run")
    random = np.random.default_rng(0)
    base = random.standard_normal(SHAPE).astype(np.float32)
    noise = base * np.float32(1 + 1e-6)
    for rank in range(RANKS):
        writer = ShardWriter(run.shards, ShardHeader(run.run_id, rank, RANKS, rank, 0, "host", 1, 0.0))
        for number in range(PAIRS):
            for side, values in (("pta", base), ("acl", noise)):
                seq = 2 * number + (side == "acl")
                record = LabelRecord(0, f"layers.{number}", 0, side, seq, float(seq), "f:1", "float32", SHAPE, "cpu")
                writer.add(record, values.reshape(-1).view(np.uint8))
        writer.close()
    save_record(recorded_run(run, RANKS), run.record)
    return run.root


def recorded_run(run: RunDir, ranks: int) -> RunRecord:
    """Return the run.json of a run that went well."""
    return RunRecord(
        run_id=run.run_id,
        command=("benchmark",),
        cwd="/",
        launcher="ray",
        device="cpu",
        visibility="node",
        cluster="local Ray",
        started=0.0,
        finished=1.0,
        versions={},
        environment={},
        ranks=tuple(
            RankRecord(
                rank=rank,
                local_rank=rank,
                host="host",
                ip="127.0.0.1",
                node_id="",
                devices=(),
                state=RankState.FINISHED,
                exit_code=0,
                started=0.0,
                finished=1.0,
            )
            for rank in range(ranks)
        ),
    )


def numpy_seconds(run: Path) -> float:
    """Return the seconds that one process takes for six metrics of all pairs with plain float64 numpy calls."""
    from aclcmp.labeling.shard.shard_files import shards_in
    from aclcmp.labeling.shard.shard_reader import read_shard

    begun = time.perf_counter()
    for files in shards_in(run / "shards"):
        index = read_shard(files)
        for golden, actual in zip(index.records[::2], index.records[1::2], strict=True):
            x, y = (read_label(index, record).astype(np.float64) for record in (golden, actual))
            d = y - x
            _ = (d * d).sum(), (x * x).sum(), (y * y).sum(), (x * y).sum(), abs(d).max(), abs(d).sum()
    return time.perf_counter() - begun


def main() -> None:
    """Print the total time and that of each stage."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    folder = Path(tempfile.mkdtemp(dir=base))
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        run = make_run(folder)
        nbytes = RANKS * PAIRS * 2 * int(np.prod(SHAPE)) * 4
        to_report, to_end, yardsticks = [], [], []
        for _ in range(5):
            begun = time.perf_counter()
            command = [sys.executable, "-m", "aclcmp", "compare", str(run)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
                assert running.stdout is not None
                reported = [time.perf_counter() - begun for line in running.stdout if line.startswith("Report:")]
            to_end.append(time.perf_counter() - begun)
            assert running.returncode == 0 and reported, "the comparison failed"
            to_report += reported
            yardsticks.append(numpy_seconds(run))
        print(f"data                           {nbytes / 1e9:.2f} GB, {RANKS} ranks x {PAIRS} pairs of 4 MiB float32")
        report, end, yard = (statistics.median(times) for times in (to_report, to_end, yardsticks))
        print(f"from command to report         median {report:.1f} s, best {min(to_report):.1f} s   (bound 5)")
        print(f"to the end, Ray being stopped  median {end:.1f} s, best {min(to_end):.1f} s")
        ratio = statistics.median(ours / theirs for ours, theirs in zip(to_report, yardsticks, strict=True))
        print(f"float64 numpy, 6 metrics       median {yard:.1f} s, no report   ratio {ratio:.2f}")
        print("where the time goes, one stage after the other (the command starts Ray while it plans):")
        print(
            subprocess.run([sys.executable, "-c", STAGES, str(run)], capture_output=True, text=True, check=True).stdout
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

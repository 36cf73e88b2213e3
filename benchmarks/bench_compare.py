"""Time commands that compare on this host, from the command to its report, five times in turns, each with its bound.

    python benchmarks/bench_compare.py [FOLDER]

2 ranks x 200 pairs of 4 MiB float32 (3.36 GB), three small `.npy` files, `--help`, and a folder that is not there. The
large data through numpy's float64 calls, in this run on the same machine, is the yardstick. Then the stages of the
comparison of the large data are timed one after the other.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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

ROUNDS = 5
STAGES = """
import sys, time
begun = time.perf_counter()
def lap(name):
    global begun
    now = time.perf_counter()
    print(f"  {name:32}{now - begun:6.2f} s")
    begun = now
from pathlib import Path
import aclcmp.orchestrator.cli.app
from aclcmp.orchestrator.cli.commands import load_kernels
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.answer import answer
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_local_run
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.report.files import write_reports
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.terminal.console import report_console
from aclcmp.orchestrator.terminal.screen import Screen
lap("imports")
run, record = open_run(Path(sys.argv[1]))
screen = Screen(report_console(open("/dev/null", "w")))
plan = plan_local_run(run, record, screen, LayoutRules())
lap("read 2 shards, plan 400 pairs")
load_kernels(screen)
lap("load the kernels")
report = answer(ComparedRun(run, record), plan, LocalComparer(), screen, JudgingOptions(Policy()))
lap("compare and judge")
write_reports(report, run)
lap("write the reports")
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A command, and how long it may take at most on two idle cores."""

    name: str
    arguments: tuple[str | Path, ...]
    bound: float
    """Seconds until the line that begins with `until`; until the end where no line does."""
    code: int = 0
    until: str = "Report:"

    def seconds(self, folder: Path) -> float:
        """Run the command in a folder and return its time."""
        begun = time.perf_counter()
        command = [sys.executable, "-m", "aclcmp", *map(str, self.arguments)]
        reported: list[float] = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
        ) as running:
            assert running.stdout is not None
            reported += [time.perf_counter() - begun for line in running.stdout if line.startswith(self.until)]
        reported.append(time.perf_counter() - begun)
        assert running.returncode == self.code, f"{self.name}: exit code {running.returncode}"
        return reported[0]


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


def make_files(folder: Path) -> Path:
    """Write three small `.npy` files for each side; the actual side has round-off noise."""
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    for side, factor in (("golden", 1.0), ("actual", 1 + 1e-6)):
        (folder / side).mkdir(parents=True)
        for number in range(3):
            np.save(folder / side / f"layers.{number}.npy", values * np.float32(factor))
    return folder


def main() -> None:
    """Print the time of each command, and that of each stage."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    folder = Path(tempfile.mkdtemp(dir=base))
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each command compiles 240 modules anew: 0.2 s
    try:
        run, files = make_run(folder), make_files(folder / "files")
        cases = (
            large := Case("compare RUN, 3.36 GB", ("compare", run), 1.8),
            Case("compare A B, three small .npy", ("compare", files / "golden", files / "actual"), 0.6),
            Case("--help", ("--help",), 0.25),
            Case("compare A nope", ("compare", files / "golden", files / "nope"), 0.3, code=2),
        )
        times: dict[Case, list[float]] = {case: [] for case in cases}
        yardsticks = []
        for _ in range(ROUNDS):
            for case in cases:
                times[case].append(case.seconds(folder))
            yardsticks.append(numpy_seconds(run))
        print(f"{'command, median of ' + str(ROUNDS):34} median    best   bound")
        for case in cases:
            median = statistics.median(times[case])
            verdict = "met" if median <= case.bound else "missed"
            print(f"{case.name:34}{median:5.2f} s  {min(times[case]):5.2f} s  {case.bound:5.2f} s  {verdict}")
        ratio = statistics.median(ours / theirs for ours, theirs in zip(times[large], yardsticks, strict=True))
        yard = statistics.median(yardsticks)
        print(f"{'6 metrics by float64 numpy':34}{yard:5.2f} s, no report; the first command takes {ratio:.2f} of it")
        print("where the time of the large one goes, one stage after the other:")
        print(
            subprocess.run([sys.executable, "-c", STAGES, str(run)], capture_output=True, text=True, check=True).stdout
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Cost for the ranks of following a run: the same labelled job is run with and without it, in turns.

Each rank multiplies matrices and labels both sides of a layer, and there is a rank for each core, so that followers
find no core idle. A rank's time is from its first label to its last, without its start; the slowest rank counts. Rounds
alternate which of both goes first. The cost of following is the median of the rounds' ratios; the difference between
two runs that are not followed is the noise of the machine. The CPU seconds that following itself used are printed too,
because noise does not change them: those at ordinary priority (starting the follower, reading journals, the driver's
thread), and those at idle priority (comparing).

    python benchmarks/bench_live.py [ROUNDS] [SECONDS] [RANKS]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.text import Text

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Device, Job, Placement, StopAt
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.launch.launcher import launch
from aclcmp.orchestrator.live.watcher import LiveWatcher
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.run.directory import RunDir

SCRIPT = """
import json, os, sys, time
import numpy as np
from aclcmp import set_label, set_task_id

seconds, target = float(sys.argv[1]), sys.argv[2]
rank = int(os.environ["RANK"])
left = np.random.default_rng(rank).standard_normal((384, 384)).astype(np.float32)
values = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
begun, cpu, layers = time.monotonic(), time.process_time(), int(40 * seconds)
for layer in range(layers):
    if layer % 40 == 0:
        set_task_id()
    for _ in range(12):
        left = left @ left
        left /= np.abs(left).max()
    set_label("golden", f"layers.{layer % 40}.mlp", values)
    set_label("actual", f"layers.{layer % 40}.mlp", values)
with open(f"{target}.{rank}", "w") as file:
    json.dump([time.monotonic() - begun, time.process_time() - cpu, layers], file)
"""


class Nobody:
    """A screen that is a terminal of 100 columns, and shows nothing."""

    room: tuple[int, bool] | None = (100, False)

    def on_dump_setup(self, sentences: Sequence[str]) -> None: ...

    def on_start(self, ranks: Sequence[Placement]) -> None: ...

    def on_line(self, rank: int, text: str) -> None: ...

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None: ...

    def say(self, text: str) -> None:
        print(f"  said: {text}")

    def show(self, below: Sequence[Text]) -> None: ...


@dataclass(frozen=True)
class Times:
    """Seconds of the slowest rank, CPU seconds of all ranks, followers and the driver, and number of compared pairs."""

    wall: float
    cpu: float
    ordinary: float
    idle: float
    compared: int


def followers() -> tuple[float, float]:
    """Return the CPU seconds that followers below this process have used, at ordinary and at idle priority."""
    used = {True: 0.0, False: 0.0}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, OSError):
            if "Follower" not in " ".join(process.cmdline()):
                continue
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                ticks, policy = int(fields[11]) + int(fields[12]), int(fields[38])
                used[policy == os.SCHED_IDLE] += ticks / os.sysconf("SC_CLK_TCK")
    return used[False], used[True]


def run_job(cluster: Cluster, folder: Path, ranks: int, seconds: float, *, followed: bool) -> Times:
    """Run the job, and return its times."""
    target = folder / "times"
    run, screen = RunDir.create(folder / "run"), Nobody()
    live = LiveWatcher(run.shards, screen, JudgingOptions(Policy()), StopAt.NEVER, lambda: cluster.head.lost)
    command = (sys.executable, str(folder / "job.py"), str(seconds), str(target))
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    job = Job(command, folder, ranks=ranks, device=Device.CPU, env=threads)
    driver = time.process_time()
    try:
        record = launch(job, cluster, run, live if followed else screen)
        ordinary, idle = followers()
    finally:
        live.close()
    driver = time.process_time() - driver
    assert record.failure is None, record.failure
    found = [json.loads(Path(f"{target}.{rank}").read_text()) for rank in range(ranks)]
    wall, cpu = max(each[0] for each in found), sum(each[1] for each in found)
    return Times(wall, cpu, ordinary + driver, idle, len(live.known))


def main(rounds: int, seconds: float, ranks: int) -> None:
    """Print the times of each round, and the ratios."""
    walls: list[float] = []
    cpus: list[float] = []
    noise: list[float] = []
    shares: list[float] = []
    print(f"{ranks} ranks on {os.cpu_count()} cores, {int(40 * seconds)} layers each, seconds of the slowest rank")
    with Cluster.open() as cluster:
        for number in range(rounds):
            times: dict[bool, list[Times]] = {True: [], False: []}
            for followed in ((False, True, False), (True, False, False))[number % 2]:
                with tempfile.TemporaryDirectory() as scratch:
                    folder = Path(scratch)
                    (folder / "job.py").write_text(SCRIPT)
                    times[followed].append(run_job(cluster, folder, ranks, seconds, followed=followed))
            (live,), (first, second) = times[True], times[False]
            walls.append(2 * live.wall / (first.wall + second.wall))
            cpus.append(2 * live.cpu / (first.cpu + second.cpu))
            noise.append(max(first.wall, second.wall) / min(first.wall, second.wall))
            used = live.ordinary - (first.ordinary + second.ordinary) / 2
            shares.append(used / (live.wall * (os.cpu_count() or 1)))
            print(
                f"  round {number + 1}: followed {live.wall:6.2f} ({live.compared:,} pairs compared meanwhile), "
                f"not {first.wall:6.2f} and {second.wall:6.2f}: {walls[-1]:.3f}; CPU of the ranks {cpus[-1]:.3f}; "
                f"following used {used:.2f} s, and {live.idle:.2f} s at idle priority"
            )
    print(f"following costs the ranks {median(walls) - 1:+.1%} of their time, {median(cpus) - 1:+.1%} of their CPU")
    print(f"two runs that are not followed differ by {median(noise) - 1:.1%}")
    print(f"following used {median(shares):.1%} of all cores' time at ordinary priority")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        int(given[0]) if given else 4,
        float(given[1]) if len(given) > 1 else 20.0,
        int(given[2]) if len(given) > 2 else os.cpu_count() or 1,
    )

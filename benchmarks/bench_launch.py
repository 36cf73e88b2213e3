"""Cost of a launch over torchrun's: ranks on one host do the same under both, in turns; and each step of a launch.

    python benchmarks/bench_launch.py [rounds]

The ranks print their number and import nothing, so that the launch is measured: from the command to its end. torchrun
imports torch for itself in that time. Printed are the medians of the times and of the differences in each round.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = (8, 1, 16, 64)
MOST_SECONDS = 3.0
"""Bar for 8 ranks, in seconds more than torchrun."""
SCRIPT = """
import os
print("rank", os.environ["RANK"])
"""
STEPS = """
import time
begun = time.monotonic()
def step(name):
    global begun
    print(f"  {name:<44}{time.monotonic() - begun:6.2f} s", flush=True)
    begun = time.monotonic()
from pathlib import Path
import sys
from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Job
from aclcmp.orchestrator.launch.launcher import launch
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.terminal.screen import Screen
from aclcmp.orchestrator.terminal.console import report_console
ranks = int(sys.argv[3])
class Steps(Screen):
    def on_start(self, places):
        step(f"starting the host's actor and {ranks} ranks")
        super().on_start(places)
screen = Steps(report_console(sys.stderr))
step("importing aclcmp")
with Cluster.open() as cluster:
    step("starting a local Ray")
    job = Job((sys.executable, sys.argv[1]), Path.cwd(), ranks=ranks)
    launch(job, cluster, RunDir.create(Path(sys.argv[2])), screen)
    step("the ranks themselves, until all have ended")
step("stopping the local Ray")
"""


def seconds(*command: str | Path) -> float:
    begun = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return time.monotonic() - begun


def measure(ranks: int, rounds: int, script: Path) -> float:
    """Print the medians for so many ranks; return the seconds that aclcmp takes more than torchrun."""
    ours, theirs = [], []
    for number in range(rounds):
        theirs.append(seconds(Path(sys.executable).parent / "torchrun", f"--nproc-per-node={ranks}", script))
        run = (sys.executable, "-m", "aclcmp", "--exec", f"{sys.executable} {script}", "--ranks", str(ranks))
        ours.append(seconds(*run, "--no-compare", "--output", script.parent / f"run{ranks}-{number}"))
    more = statistics.median(our - their for our, their in zip(ours, theirs, strict=True))
    print(
        f"{ranks:3} ranks, median of {rounds}: aclcmp {statistics.median(ours):5.2f} s, torchrun "
        f"{statistics.median(theirs):5.2f} s, {more:+.2f} s",
        flush=True,
    )
    return more


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        script, steps = Path(folder, "script.py"), Path(folder, "steps.py")
        script.write_text(SCRIPT)
        steps.write_text(STEPS)
        more = {ranks: measure(ranks, rounds, script) for ranks in RANKS}
        # in proportion: a rank more must not cost more than each of the eight may
        each = MOST_SECONDS / 8
        grown = (more[64] - more[8]) / 56
        for text, found, bar in (
            ("8 ranks, seconds more than torchrun", more[8], MOST_SECONDS),
            ("64 ranks, seconds more than torchrun for each rank beyond 8", grown, each),
        ):
            print(f"{'pass' if found <= bar else 'FAIL'}: {text}: {found:.2f} (at most {bar:.2f})")
        for ranks in (8, 64):
            print(f"One launch of {ranks} ranks in steps:", flush=True)
            command = [sys.executable, steps, script, Path(folder, f"steps{ranks}"), str(ranks)]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

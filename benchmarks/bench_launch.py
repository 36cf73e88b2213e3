"""Cost of a launch over torchrun: 8 ranks on one host do the same under both, in turns; and each step of a launch.

    python benchmarks/bench_launch.py [rounds]

The ranks import nothing but aclcmp and label one small tensor, so that what is measured is the launch. Bound: 6 s more
than torchrun.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = 8
SCRIPT = """
import array, os, sys
import numpy as np
from aclcmp import set_label
set_label("golden", "x", np.ones(8, np.float32))
set_label("actual", "x", np.ones(8, np.float32))
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
class Steps(Screen):
    def on_start(self, ranks):
        step("placing and starting 8 actors and their ranks")
        super().on_start(ranks)
screen = Steps(report_console(sys.stderr))
step("importing aclcmp")
with Cluster.open() as cluster:
    step("starting a local Ray")
    launch(Job((sys.executable, sys.argv[1]), Path.cwd(), ranks=8), cluster, RunDir.create(Path(sys.argv[2])), screen)
    step("the ranks themselves, until all have ended")
step("stopping the local Ray")
"""


def seconds(*command: str | Path) -> float:
    begun = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return time.monotonic() - begun


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        script, steps = Path(folder, "script.py"), Path(folder, "steps.py")
        script.write_text(SCRIPT)
        steps.write_text(STEPS)
        ours, theirs = [], []
        for number in range(rounds):
            theirs.append(seconds(bin_folder / "torchrun", f"--nproc-per-node={RANKS}", script))
            run = (sys.executable, "-m", "aclcmp", "--exec", f"{sys.executable} {script}", "--ranks", str(RANKS))
            ours.append(seconds(*run, "--no-compare", "--output", Path(folder, f"run{number}")))
        median = [statistics.median(each) for each in (ours, theirs)]
        print(f"{RANKS} ranks, median of {rounds}: aclcmp {median[0]:.1f} s, torchrun {median[1]:.1f} s")
        print(f"aclcmp costs {median[0] - median[1]:.1f} s more (bound: 6 s). One launch in steps:", flush=True)
        subprocess.run([sys.executable, steps, script, Path(folder, "steps")], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

"""Demo of `make demo`: a tensor-parallel GLM on eight ranks, a fault planted in one of them, and `aclcmp` to find it.

Exits with 0 when the report names the planted layer and rank as the first divergence, else with 1.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RANKS, LAYER, RANK = 8, 2, 5
SCRIPT = f"python examples/glm/run.py --fault permuted-slice --layer {LAYER} --rank {RANK}"

EXPECT = f"""\
Each of the {RANKS} ranks runs a plain GLM (golden) and its part of the same GLM under tensor parallelism (actual).
Both are labelled layer by layer. In layer {LAYER}, rank {RANK} holds the rows of one weight slice in a wrong order.
Expect: everything before that matches, the first divergence is in the MLP of layer {LAYER} on rank {RANK} alone,
and what comes after the next all-reduce is wrong on all ranks.
"""

FOUND = """\
Found: {label}, rank {ranks}. That is where the fault was planted.

What to look at:
  {run}/report.json   the whole answer; .csv for spreadsheets, .h5 for HDF5 viewers
  {run}/shards/       the labelled tensors, one HDF5 file for each rank
  {run}/logs/         what each rank printed
  examples/glm/labels.py   how the model was labelled; README.md beside it lists seven more faults to try
"""


def main() -> int:
    """Run the demo and return its exit code."""
    run = Path("aclcmp-runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    options = ["--exec", SCRIPT, "--ranks", str(RANKS), "--output", str(run)]
    print("$", shlex.join(["aclcmp", *options]), end="\n\n")
    print(EXPECT, flush=True)
    # The `python` of the command is the interpreter that runs this file.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    process = subprocess.Popen([sys.executable, "-m", "aclcmp", *options], cwd=ROOT, env={**os.environ, "PATH": path})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches aclcmp too, which stops its ranks before it ends
    code = process.wait()
    report = ROOT / run / "report.json"
    if code != 1 or not report.exists():
        return fail(f"aclcmp ended with {code}; 1 (diverged) and a report in {run} were expected.")
    first = json.loads(report.read_text())["first_divergence"]
    if first is None or not first["label"].startswith(f"layers.{LAYER}.") or first["ranks"] != [RANK]:
        return fail(f"the report's first divergence is {first}; layer {LAYER} on rank {RANK} was expected.")
    print("\n" + FOUND.format(label=first["label"], ranks=RANK, run=run))
    return 0


def fail(why: str) -> int:
    """Say on stderr that the demo failed, and return its exit code."""
    print(f"The demo failed: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

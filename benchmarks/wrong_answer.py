"""The way from a wrong answer to a case (docs/case.md), in a real vLLM with two faults planted in it, step by step.

    python benchmarks/wrong_answer.py [--ranks 3] [--folder DIR]

Needs `.venv-engine` (`make .venv-engine/ready`) and `.trained/smollm2`. Each command is printed, with what it prints
and how long it takes. SmolLM2 with its trained weights is cut to three layers, in float32.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv-engine" / "bin"
sys.path.insert(0, str(ROOT))
FAULTS = "model.layers.0.self_attn.o_proj:scale,model.layers.1.mlp.gate_up_proj:zero"
OPTIONS = "--dtype float32 --max-model-len 256 --block-size 32 --max-num-batched-tokens 32 --max-num-seqs 4"
PLANT = """
import os
if os.environ.get("FAULTS") and os.environ.get("ACLCMP_RUN_ID"):
    from aclcmp.labeling.engines import vllm
    from tests.engines.faulty_vllm import plant
    vllm._watch = plant
"""
KERNEL = """
def o_proj(x, weight):
    return x @ weight.T * 1.05
"""


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="aclcmp-wrong-answer-"))
    folder.mkdir(exist_ok=True)
    from tests.engines.conftest import CUT
    from tests.engines.rounds_text import LONG

    source = Path(os.environ.get("ACLCMP_TRAINED", ROOT / ".trained")) / "smollm2"
    if not (folder / "smollm2").exists():
        subprocess.run([BIN / "python", "-c", CUT, source, folder / "smollm2"], check=True, capture_output=True)
    (folder / "prompts.txt").write_text(f"{LONG}\nOnce upon a time\n{LONG}\n")
    (folder / "plant").mkdir(exist_ok=True)
    (folder / "plant" / "sitecustomize.py").write_text(PLANT)
    (folder / "my_kernel.py").write_text(KERNEL)
    for name in ("run", "bisect", *(each.name for each in folder.glob("*-case"))):
        shutil.rmtree(folder / name, ignore_errors=True)

    ranks = f"--ranks {given.ranks}"
    step(folder, f"aclcmp check smollm2 --prompts prompts.txt --max-tokens 4 {ranks} --output run --local -- {OPTIONS}")
    command = f'"python -m aclcmp.labeling.engines.vllm_run smollm2 prompts.txt 4 {OPTIONS}"'
    step(folder, f"aclcmp bisect run --exec {command} {ranks}")
    for label in ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"):
        step(folder, f"aclcmp case run {label} --model smollm2")
        step(folder, f"python {label}-case/case.py")
    step(folder, "python model.layers.0.self_attn.o_proj-case/case.py my_kernel.py:o_proj")


def step(folder: Path, command: str) -> None:
    """Run a command, with the faults planted in the engine, and print it with what it prints."""
    print(f"$ {command}", flush=True)
    paths = os.pathsep.join(map(str, (folder / "plant", ROOT)))
    environ = os.environ | {"FAULTS": FAULTS, "PYTHONPATH": paths, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    begin = time.monotonic()
    done = subprocess.run(command, shell=True, cwd=folder, env=environ, capture_output=True, text=True)
    print("\n".join(line for line in done.stdout.splitlines() if not line.startswith("[rank")))
    print(f"(exit code {done.returncode}, {time.monotonic() - begin:.0f} s)\n", done.stderr[-2000:], flush=True)


if __name__ == "__main__":
    main()

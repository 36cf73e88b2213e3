"""The example of a replaced operation, layer and model as a script: alone, and with options that cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.op_layer_model_ranks import EXAMPLE

pytestmark = pytest.mark.model

REFUSED = """
import sys
from run import main
for options in sys.argv[1:]:
    try:
        main(options.split())
    except SystemExit as end:
        print(end.code)
"""
PATHS = """
from paths import low_level_paths
from replaced import GRANULARITIES
for granularity in GRANULARITIES:
    for name, path in low_level_paths(granularity, 2).items():
        print(granularity, name, path)
"""


def run_python(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE), **variables}
    return subprocess.run([sys.executable, "-W", "error", *command], env=environment, capture_output=True, text=True)


def test_runs_alone_without_labels_or_dumps(tmp_path: Path) -> None:
    done = run_python(str(EXAMPLE / "run.py"), "--turns", "3", "--layers", "1", ATB_OUTPUT_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "turn 0: 24 tokens\nturn 1: 36 tokens\nturn 2: 48 tokens\n"
    assert not list(tmp_path.iterdir())


def test_options_that_cannot_be() -> None:
    cases = {
        "--turns 0": "--layers, --hidden and --turns must be at least 1",
        "--fault scale --layer 4": "--layer 4: the layers are 0 to 3",
        "--fault scale --layer -1": "--layer -1: the layers are 0 to 3",
        "--fault scale --rank 4": "--rank 4: the ranks are 0 to 3",
        "--hidden 1": "4 ranks cannot share 8 key heads and an MLP of 3 equally",
    }
    done = run_python("-c", REFUSED, *cases, WORLD_SIZE="4", RANK="0")
    assert done.stdout.split() == ["2"] * len(cases), done.stderr
    errors = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
    assert errors == list(cases.values())


def test_readme_shows_a_real_path_and_all_faults() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    paths = dict(line.rsplit(" ", 1) for line in run_python("-c", PATHS).stdout.splitlines())
    assert f'"{paths["model attn.softmax"]}"' in readme
    table = readme.partition("| `--fault` |")[2]
    assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == ["scale", "shifted-head"]

"""Unmodified transformers models, watched: green beside their tensor-parallel selves, and a planted fault is named."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]
WATCH = ROOT / "examples" / "watch"
FAULTS = {"permuted-slice": "model.layers.{}.self_attn.q_proj", "rolled-tokens": "model.layers.{}.mlp"}
"""The first label that each fault makes wrong, on the rank at fault alone."""


def watch_example(folder: Path, *arguments: str, ranks: int = 4) -> tuple[int, str, dict[str, Any]]:
    """Run the example under the real command; return its exit code, its output and its report."""
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = " ".join(("python -W error examples/watch/run.py", *arguments))
    command = [sys.executable, "-m", "aclcmp", "--exec", script, "--ranks", str(ranks), "--output", str(folder / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    told = done.stdout + done.stderr
    assert (folder / "run" / "report.json").exists(), told
    return done.returncode, told, read_report(folder / "run")


@pytest.mark.ray
@pytest.mark.parametrize("arguments", [("--architecture", "glm", "--inputs")])
def test_healthy_is_green_and_complete(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, told, report = watch_example(tmp_path, *arguments)
    assert code == 0, told
    assert "never ran" not in told
    labels = [label["label"] for label in report["labels"] if label["task"] == 0]
    for expected in ("model.embed_tokens", "model.layers.3.self_attn.o_proj", "model.layers.3", "lm_head"):
        assert expected in labels
    assert "forward.logits" in labels
    assert ("model.layers.0.mlp.down_proj.input" in labels) == ("--inputs" in arguments)
    assert {label["status"] for label in report["labels"]} == {"match"}
    assert all(set(label["ranks"]) == {"0", "1", "2", "3"} for label in report["labels"])
    assert report["coverage"]["compared"] == 4 * len(report["labels"])


@pytest.mark.ray
@pytest.mark.parametrize(("fault", "architecture"), [("permuted-slice", "qwen2"), ("rolled-tokens", "llama")])
def test_fault_in_an_unmodified_model_is_named(tmp_path: Path, fault: str, architecture: str) -> None:
    layer, rank = 1, 1
    code, told, report = watch_example(
        tmp_path, "--architecture", architecture, "--fault", fault, "--layer", str(layer), "--rank", str(rank), ranks=2
    )
    assert code == 1, told
    first = report["first_divergence"]
    assert (first["task"], first["label"]) == (0, FAULTS[fault].format(layer)), told
    assert (first["ranks"], first["origin"]) == ([rank], "own")
    names = [label["label"] for label in report["labels"]]
    assert {label["status"] for label in report["labels"][: names.index(first["label"])]} == {"match"}


def test_runs_alone_without_labels() -> None:
    command = [sys.executable, "-W", "error", str(WATCH / "run.py"), "--layers", "1", "--fault", "rolled-tokens"]
    done = subprocess.run([*command, "--layer", "0", "--rank", "0"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--fault rolled-tokens --rank 1", "--rank 1: the ranks are 0 to 0"),
        ("--fault rolled-tokens --rank 0 --layer 4", "--layer 4: the layers are 0 to 3"),
        ("--model nowhere", "--model nowhere: no config.json there"),
    ],
)
def test_options_that_cannot_be(options: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(WATCH / "run.py"), *options.split()], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].partition("error: ")[2] == message


def test_readme_names_the_faults() -> None:
    rows = [line for line in (WATCH / "README.md").read_text().splitlines() if line.startswith("| `")][1:]
    for (fault, label), row in zip(FAULTS.items(), rows, strict=True):
        assert row.startswith(f"| `{fault}` |")
        assert row.endswith(f"| `{label.format('L')}` | rank R |")

"""The original's example through the real command: low level names the kernel at fault, high level what holds it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = [pytest.mark.ray, pytest.mark.model]

ROOT = Path(__file__).parents[2]
RANKS, LAYERS, LAYER, RANK = 2, 4, 2, 1
LOW = {"op": 3, "layer": 13, "model": 14}
"""Low-level labels of a layer."""
HIGH = {"op": 4 * LAYERS, "layer": 2 * LAYERS, "model": 3}
"""High-level labels of a task."""


def example(folder: Path, *arguments: str, low_level: bool = True) -> tuple[int, str, dict[str, Any]]:
    """Run the example under the real command; return its exit code, its output and its report."""
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = " ".join(("python examples/op_layer_model/run.py", *arguments))
    options = ["--ranks", str(RANKS), "--output", str(folder / "run"), *(["--low-level"] if low_level else [])]
    command = [sys.executable, "-m", "aclcmp", "--exec", script, *options]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr, read_report(folder / "run")


@pytest.mark.parametrize(
    ("granularity", "generation", "dtype"),
    [("op", "B", "float32"), ("layer", "D", "float32"), ("model", "A", "bfloat16")],
)
def test_healthy_at_both_levels(tmp_path: Path, granularity: str, generation: str, dtype: str) -> None:
    options = ("--granularity", granularity, "--generation", generation, "--dtype", dtype)
    code, told, report = example(tmp_path, *options)
    assert code == 0, told
    assert "All match" in told
    assert {label["task"] for label in report["labels"]} == {0, 1}
    assert {label["status"] for label in report["labels"]} == {"match"}
    assert len(report["labels"]) == 2 * (LOW[granularity] * LAYERS + HIGH[granularity])
    assert all(len(label["ranks"]) == RANKS for label in report["labels"])


@pytest.mark.parametrize(("granularity", "level"), [("op", "both"), ("model", "low")])
def test_low_level_names_the_third_kernel(tmp_path: Path, granularity: str, level: str) -> None:
    fault = ("--fault", "shifted-head", "--layer", str(LAYER), "--rank", str(RANK))
    code, told, report = example(tmp_path, "--granularity", granularity, "--level", level, *fault)
    assert code == 1, told
    first = report["first_divergence"]
    assert (first["task"], first["label"], first["ranks"]) == (0, f"layers.{LAYER}.attn.softmax", [RANK]), told
    assert first["origin"] == "own"
    position = [label["label"] for label in report["labels"]].index(first["label"])
    assert {label["status"] for label in report["labels"][:position]} == {"match"}


@pytest.mark.parametrize(
    ("granularity", "label", "ranks"),
    [
        ("layer", f"layers.{LAYER}.out", [*range(RANKS)]),
        ("model", "model.out", [*range(RANKS)]),
    ],
)
def test_high_level_alone_names_only_what_was_replaced(
    tmp_path: Path, granularity: str, label: str, ranks: list[int]
) -> None:
    fault = ("--fault", "shifted-head", "--layer", str(LAYER), "--rank", str(RANK))
    code, told, report = example(tmp_path, "--granularity", granularity, "--level", "high", *fault, low_level=False)
    assert code == 1, told
    first = report["first_divergence"]
    assert (first["task"], first["label"], first["ranks"]) == (0, label, ranks), told

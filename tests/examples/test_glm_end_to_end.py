"""The main job: the GLM example through the real command; healthy it is green, each planted fault is named."""

import importlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_report_h5 import printed
from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = [pytest.mark.ray, pytest.mark.model]

ROOT = Path(__file__).parents[2]
NAMES = (
    "double-reduce",
    "missing-reduce",
    "nan",
    "one-token",
    "permuted-slice",
    "rope-off-by-one",
    "scale",
    "swapped-heads",
)
"""Not imported from the example: that takes transformers, seconds of every collection of tests."""


@cache
def all_faults() -> dict[str, Any]:
    """The example's faults; its folder is no package."""
    sys.path.insert(0, str(ROOT / "examples" / "glm"))
    return dict(importlib.import_module("faults").FAULTS)


def glm(folder: Path, ranks: int, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run the example under the real command; return its exit code, its output and its report."""
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = " ".join(("python examples/glm/run.py", *arguments))
    command = [sys.executable, "-m", "aclcmp", "--exec", script, "--ranks", str(ranks), "--output", str(folder / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr, read_report(folder / "run")


@pytest.mark.parametrize(("ranks", "dtype"), [(8, "float32"), (4, "bfloat16")])
def test_healthy(tmp_path: Path, ranks: int, dtype: str) -> None:
    code, told, report = glm(tmp_path, ranks, "--dtype", dtype)
    assert code == 0, told
    assert "All match" in told
    assert report["coverage"]["compared"] == sum(len(label["ranks"]) for label in report["labels"]) > 75 * ranks
    assert {label["task"] for label in report["labels"]} == {0, 1}
    assert {label["status"] for label in report["labels"]} == {"match"}


@pytest.mark.parametrize("name", NAMES)
def test_fault_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = 4 if name == "permuted-slice" else 2  # each rank takes ten seconds of a core to import torch
    layer, rank = 2, ranks - 1
    code, told, report = glm(tmp_path, ranks, "--fault", name, "--layer", str(layer), "--rank", str(rank))
    assert code == 1, told
    first = report["first_divergence"]
    assert set(all_faults()) == set(NAMES)
    fault = all_faults()[name]
    assert (first["task"], first["label"]) == (0, fault.first_label(layer)), told
    assert first["ranks"] == list(fault.first_ranks(rank, ranks))
    assert first["origin"] == "own"
    before = [label["status"] for label in report["labels"] if label["task"] == 0]
    position = [label["label"] for label in report["labels"]].index(first["label"])
    assert set(before[:position]) == {"match"}
    if name == "permuted-slice":  # that of the demo: the samples of the docs run on its report
        said = printed(tmp_path / "run", monkeypatch)
        assert said[1].startswith(f"{first['label']}, task 0, ranks [{rank}], labelled at")
        assert "complete" in said[8], said

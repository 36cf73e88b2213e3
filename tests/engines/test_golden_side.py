"""The process of the golden side: what it prints is shown, and how it ended is told; a script stands in for it."""

import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.engines.check_input import GoldenModel
from aclcmp.orchestrator.engines.golden_side import compute_golden
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.run.directory import RunDir


def compute(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> list[str]:
    """Run a script in place of the golden side; return what is shown."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    said: list[str] = []
    compute_golden(RunDir(folder, "run"), "run", GoldenModel(folder), said.append)
    return said


def test_progress_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo 'golden: request 1 of 2'; echo noise; printf '50 %%\\rgolden: request 2 of 2\\n'"
    assert compute(tmp_path, monkeypatch, script) == ["golden: request 1 of 2", "golden: request 2 of 2"]


def test_the_error_is_told_though_more_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^no model$"):
        compute(tmp_path, monkeypatch, "echo 'aclcmp: error: no model'; echo 'a warning at exit' >&2; exit 2")
    with pytest.raises(UsageError, match=r"^the golden side cannot be computed$"):
        compute(tmp_path, monkeypatch, "echo noise; exit 2")


@pytest.mark.parametrize(
    ("end", "words"),
    [("exit 1", "exit code 1"), ("kill -9 $$", "signal SIGKILL; often the system was out of memory")],
)
def test_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, words: str) -> None:
    with pytest.raises(LaunchError) as caught:
        compute(tmp_path, monkeypatch, f"echo one; echo two; {end}")
    assert str(caught.value) == f"the golden side failed ({words}): one | two"

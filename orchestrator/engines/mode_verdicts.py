"""One line for each mode in which an engine was checked, from its report."""

from __future__ import annotations

import json
from pathlib import Path

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import WRONG
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.run.directory import RunDir


def mode_verdict(run: Path, mode: str, code: int) -> str:
    """Return whether an engine agrees with the original in a mode, and from which label on it does not."""
    first: object = None
    differs = False
    try:
        report = json.loads(RunDir(run, "").report_json.read_bytes())
        first = report["first_divergence"]
        differs = any(label["status"] in WRONG for label in report["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        if code != ExitCode.MATCH:
            return f"{mode} was not compared (exit code {code})"
    if code == ExitCode.MATCH:
        passes = visible(f"{mode} differs from the original only in what the policy or --fail-on lets pass ({run})")
        return passes if differs else f"{mode} agrees with the original"
    if code == ExitCode.DIVERGED and isinstance(first, dict):
        return visible(f"{mode} does not agree with the original, from {first.get('label')} on ({run})")
    if code == ExitCode.DIVERGED:
        return visible(f"{mode} drifts from the original, which --fail-on drift refuses ({run})")
    return visible(f"{mode} was not compared completely (exit code {code}): see {run}")

"""The steps of the commands on serving engines."""

from __future__ import annotations

from pathlib import Path

from aclcmp.orchestrator.engines.check_input import check_model
from aclcmp.orchestrator.engines.golden_side import compute_golden
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.terminal.startup import terminal


def add_golden(
    folder: Path, model: Path, policy: Path | None, fail_on: FailOn | None, *, compare: bool, as_json: bool
) -> ExitCode:
    """Compute the golden side of a run, and unless told otherwise compare; return the command's exit code."""
    check_model(model)
    run, record = open_run(folder)
    _, screen = terminal(as_json)
    compute_golden(run, record.run_id, model, screen.say)
    if not compare:
        return ExitCode.MATCH
    from aclcmp.orchestrator.cli.commands import compare_again
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options

    return compare_again(folder, None, read_judging_options(policy, fail_on, None), clean=False, as_json=as_json)

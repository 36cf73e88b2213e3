"""The steps of the commands on serving engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from aclcmp.orchestrator.engines.check_input import check_model
from aclcmp.orchestrator.engines.golden_side import compute_golden
from aclcmp.orchestrator.engines.mode_verdicts import mode_verdict, worst_code
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


def check_modes(root: Path, words: Sequence[str], modes: Mapping[str, Sequence[str]], options: Sequence[str]) -> int:
    """Check the engine in each mode, in a run and a process of its own; print what differs; return the worst exit code.

    A process can start one local Ray only.
    """
    codes: dict[str, int] = {}
    for mode in modes:
        print(f"mode {mode}", flush=True)
        own = ["--modes", mode, "--output", str(root / mode), "--", *options]
        with subprocess.Popen([sys.executable, "-m", "aclcmp", "check", *words, *own]) as process:
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                raise
        codes[mode] = code if code >= 0 else ExitCode.FAILED  # a signal ended it
    for mode, code in codes.items():
        print(mode_verdict(root / mode, mode, code))
    return worst_code(codes.values())

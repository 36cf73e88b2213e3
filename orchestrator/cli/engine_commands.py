"""The steps of the commands on serving engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.orchestrator.engines.check_input import GoldenModel
from aclcmp.orchestrator.engines.golden_side import compute_golden
from aclcmp.orchestrator.engines.mode_verdicts import mode_verdict
from aclcmp.orchestrator.errors import ExitCode, worst_code
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.terminal.startup import terminal

if TYPE_CHECKING:
    from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions


def add_golden(folder: Path, model: GoldenModel, terms: JudgingOptions, *, compare: bool, as_json: bool) -> ExitCode:
    """Compute the golden side of a run, and unless told otherwise compare; return the command's exit code."""
    model.check()
    run, record = open_run(folder)
    _, screen = terminal(as_json)
    compute_golden(run, record.run_id, model, screen.say)
    if not compare:
        return ExitCode.MATCH
    from aclcmp.orchestrator.cli.commands import compare_again

    return compare_again(folder, None, terms, clean=False, as_json=as_json)


def check_modes(root: Path, words: Sequence[str], modes: Iterable[str], options: Sequence[str]) -> int:
    """Check the engine in each mode, in a run and a process of its own; print what differs; return the worst exit code.

    A process can start one local Ray only.
    """
    codes: dict[str, int] = {}
    for mode in modes:
        print(f"mode {mode}", flush=True)
        own = ["--modes", mode, "--output", str(root / mode), "--", *options]
        code = run_command([sys.executable, "-m", "aclcmp", "check", *words, *own])
        codes[mode] = code if code >= 0 else ExitCode.FAILED  # a signal ended it
    for mode, code in codes.items():
        print(mode_verdict(root / mode, mode, code))
    return worst_code(codes.values())


def run_command(command: Sequence[str], *, quiet: bool = False) -> int:
    """Run a command of ours; return its exit code. It is told of a Ctrl-C once, as if it had come to it alone.

    In the session of the terminal it would get the signal twice, and kill its ranks instead of stopping them.
    """
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL if quiet else None)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait()
        except BaseException:
            process.terminate()
            raise
        raise

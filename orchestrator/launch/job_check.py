"""The checks on a job before anything is started: its options, and whether its command can be run on this host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from aclcmp.orchestrator.core.detect_launcher import MAX_SCRIPT
from aclcmp.orchestrator.core.job import Job
from aclcmp.orchestrator.core.option_checks import find_launch_refusal
from aclcmp.orchestrator.core.option_fields import as_option
from aclcmp.orchestrator.errors import UsageError


def check_job(job: Job) -> None:
    """Raise UsageError for a job that is wrong whatever the cluster."""

    def read_script(name: str) -> bytes:
        with (job.cwd / name).open("rb") as file:
            return file.read(MAX_SCRIPT)

    if refusal := find_launch_refusal(job, job.command, as_option, read_script):
        raise refusal.as_usage_error()
    _check_command(job)


def _check_command(job: Job) -> None:
    word = job.command[0]
    if "/" not in word:
        search = job.env.get("PATH", os.environ.get("PATH"))
        if shutil.which(word, path=search) is not None:
            return
        if (job.cwd / word).is_file():
            raise UsageError(f"{word}: command not found; did you mean {_runnable(job.cwd / word, word)}?")
        raise UsageError(f"{word}: command not found")
    path = job.cwd / word
    if not path.exists():
        raise UsageError(f"{word}: no such file")
    if path.is_dir():
        raise UsageError(f"{word} is a folder, not a command")
    if not os.access(path, os.X_OK):
        raise UsageError(f"{word} is not executable; did you mean {_runnable(path, word)}?")


def _runnable(path: Path, word: str) -> str:
    """Return the command that probably runs this file."""
    if path.suffix == ".py":
        return f"`python {word}`"
    if path.suffix == ".sh" or not os.access(path, os.X_OK):
        return f"`bash {word}`"
    return f"`./{word}`"

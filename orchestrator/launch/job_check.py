"""What is to be launched, and the checks on it that need no cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from aclcmp.labeling.label_filter import parse_labels, parse_tasks
from aclcmp.orchestrator.core.job import RANK_VARIABLES, VISIBILITY_VARIABLES, Job, Launcher
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.launch.detect_launcher import own_launcher

_SHELL_WORDS = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1", "&>"})


def check(job: Job) -> None:
    """Raise UsageError for what is wrong with the job itself, before anything is started."""
    if not job.command or not job.command[0]:
        raise UsageError('no command: give one with --exec "python script.py"')
    if job.ranks < 1:
        raise UsageError(f"--ranks {job.ranks}: at least one rank is needed")
    if job.nodes is not None and job.nodes < 1:
        raise UsageError(f"--nodes {job.nodes}: at least one node is needed")
    if job.nodes is not None and job.ranks % job.nodes:
        raise UsageError(f"--ranks {job.ranks} cannot be spread evenly over --nodes {job.nodes}")
    if job.timeout is not None and not job.timeout > 0:
        raise UsageError(f"--timeout {job.timeout:g}: give a positive number of seconds")
    parse_labels(job.labels)
    if job.tasks:
        parse_tasks(job.tasks)
    _check_variables(job.env or {})
    _check_command(job)
    if job.launcher is Launcher.RAY and (found := own_launcher(job.command, job.cwd)):
        raise UsageError(f"{found} starts its own ranks; add --launcher script, or give the plain command")


def _check_variables(env: Mapping[str, str]) -> None:
    for name in env:
        if not name or "=" in name or "\0" in name + env[name]:
            raise UsageError(f"--env {name!r} is not a variable's name")
        if name in RANK_VARIABLES or name in VISIBILITY_VARIABLES.values() or name.startswith("ACLCMP_"):
            raise UsageError(f"--env {name}: aclcmp sets this variable for every rank; it cannot be overridden")


def _check_command(job: Job) -> None:
    if shell := next((word for word in job.command if word in _SHELL_WORDS), None):
        raise UsageError(f"no shell runs the command, so {shell!r} would be an argument; use bash -c '...' or a script")
    word = job.command[0]
    if "/" not in word:
        search = (job.env or {}).get("PATH", os.environ.get("PATH"))
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
    """How one would probably run this file."""
    if path.suffix == ".py":
        return f"`python {word}`"
    if path.suffix == ".sh" or not os.access(path, os.X_OK):
        return f"`bash {word}`"
    return f"`./{word}`"

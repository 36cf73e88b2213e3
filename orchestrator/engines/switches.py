"""The switches of an engine that a bisection tries, as the engine itself tells them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from aclcmp.labeling.engines.vllm_switches import SWITCH
from aclcmp.orchestrator.errors import UsageError

_RANK = "aclcmp.labeling.engines.{}_run"
"""Module that `aclcmp check` starts."""
_ARGUMENTS = ("MODEL", "PROMPTS", "MAX_TOKENS")
"""What it takes at least."""


def engine_switches(engine: str, command: Sequence[str]) -> tuple[str, ...]:
    """Return the switches of the engine that a command of `aclcmp check` started; each is words to append to it.

    Raises UsageError for another command, and where the engine knows no switch.
    """
    module = _RANK.format(engine)
    if module not in command:
        raise UsageError(
            f"--engine {engine} knows the switches of what `aclcmp check` started, and the command is "
            f"{command[0] if command else 'empty'}; give --switch, once for each"
        )
    arguments = command[command.index(module) + 1 :]
    if len(arguments) < len(_ARGUMENTS):
        raise UsageError(
            f"--engine {engine}: the command lacks {' '.join(_ARGUMENTS[len(arguments) :])} behind {module}"
        )
    if not Path(arguments[0]).is_dir():
        raise UsageError(
            f"--engine {engine}: {arguments[0]} is no folder here; `aclcmp check` started from another one"
        )
    asked = [sys.executable, "-m", f"aclcmp.labeling.engines.{engine}_switches", *arguments]
    done = subprocess.run(asked, capture_output=True, text=True, errors="replace")
    lines = done.stdout.splitlines()
    found = tuple(line.removeprefix(SWITCH) for line in lines if line.startswith(SWITCH))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["it knows none"])[-1]
        raise UsageError(f"--engine {engine}: its switches are not known ({last[:300]}); give --switch, once for each")
    return found

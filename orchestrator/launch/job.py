"""What is to be launched, and the checks on it that need no cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.selection import parse_labels, parse_tasks
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.launch.detect_launcher import own_launcher


class Device(str, Enum):
    """What a rank computes on."""

    AUTO = "auto"
    """NPU if the cluster has any, else CUDA, else CPU."""
    NPU = "npu"
    CUDA = "cuda"
    CPU = "cpu"


class Visibility(str, Enum):
    """Which of its node's devices a rank sees."""

    NODE = "node"
    """All devices granted on the node; LOCAL_RANK is the index of the rank's own, as under torchrun."""
    OWN = "own"
    """Only its own, which is device 0 inside the rank."""


class Launcher(str, Enum):
    """Who starts the ranks."""

    RAY = "ray"
    """aclcmp: the command is run once per rank."""
    SCRIPT = "script"
    """The command itself (torchrun, mpirun): it is run once per node."""


class StopAt(str, Enum):
    """What ends a run before its ranks end by themselves."""

    NEVER = "never"
    FIRST_DIVERGENCE = "first-divergence"
    """A label that is wrong by itself, by what is compared while the ranks run."""


RANK_VARIABLES = frozenset(
    {
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "NODE_RANK",
        "NNODES",
        "NPROC_PER_NODE",
        "MASTER_ADDR",
        "MASTER_PORT",
    }
)
_SHELL_WORDS = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1", "&>"})
VISIBILITY_VARIABLES = {Device.NPU: "ASCEND_RT_VISIBLE_DEVICES", Device.CUDA: "CUDA_VISIBLE_DEVICES"}


@dataclass(frozen=True, slots=True)
class Job:
    """One launch as the user asked for it."""

    command: tuple[str, ...]
    ranks: int
    cwd: Path
    nodes: int | None = None
    """Exactly this many nodes, with equally many ranks each. None: as few as hold the devices."""
    device: Device = Device.AUTO
    env: Mapping[str, str] | None = None
    """Added to the ranks' environment."""
    timeout: float | None = None
    """Seconds for the whole job."""
    visibility: Visibility = Visibility.NODE
    launcher: Launcher = Launcher.RAY
    strict: bool = False
    """A label that cannot be recorded raises in the user's script."""
    low_level: bool = False
    """Make the accelerated library dump its own tensors, for labels that name its files."""
    labels: str = ""
    """Regular expression: only labels in whose id it is found are recorded; "": all."""
    tasks: str = ""
    """Only labels of these tasks are recorded, e.g. "0-3,7"; "": all."""
    capture: Capture = Capture.FULL
    """How much of a tensor is kept."""
    perturb: int | None = None
    """Seed by which `aclcmp.perturb` changes the last bit of the model's input; None: it does not."""


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

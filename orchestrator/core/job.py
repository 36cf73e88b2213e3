"""The options of a run and of a cluster file's job, and the job that is launched by them.

This is the one list: `aclcmp run` and `aclcmp submit` (`cli/options.py`), the section of a cluster file
(`submit/job_section.py`) and the command line that a cluster gets (`submit/submission.py`) are made from it.
`option_checks.py` says which values and combinations are refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from math import inf, nan
from pathlib import Path
from typing import Annotated

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.label_filter import parse_labels, parse_tasks
from aclcmp.orchestrator.core.option_fields import HelpGroup, Option
from aclcmp.orchestrator.core.redaction import redact
from aclcmp.orchestrator.errors import FailOn

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


class Device(str, Enum):
    """The kind of device that a rank computes on."""

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
    """Events that end a run before its ranks end by themselves."""

    NEVER = "never"
    FIRST_DIVERGENCE = "first-divergence"
    """A label that is wrong by itself, by what is compared while the ranks run."""


class Fetch(str, Enum):
    """How much of a run the driver's host gets: each has what is before it, too."""

    REPORT = "report"
    SHARDS = "shards"
    ALL = "all"
    """Logs and the library's dumps as well."""


VISIBILITY_VARIABLES = {Device.NPU: "ASCEND_RT_VISIBLE_DEVICES", Device.CUDA: "CUDA_VISIBLE_DEVICES"}


def split_command(text: str) -> tuple[str, ...]:
    """Split the text of --exec into words as a shell does. Raises ValueError when a quote is not closed."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{redact(text)!r} cannot be split into words: {error}") from None


def refuse_words(words: Sequence[str]) -> tuple[str, str] | None:
    """Say what is wrong with the words of a command, wherever it is to run."""
    if not words or not words[0]:
        return "", 'no command; give a command such as "python run.py"'
    if shell := next((word for word in words if word in _SHELL_WORDS), None):
        return "", f"no shell runs the command, so {shell!r} would be an argument; use bash -c '...' or a script"
    return None


def _refuse_command(text: str) -> tuple[str, str] | None:
    try:
        return refuse_words(split_command(text))
    except ValueError as error:
        return "", str(error)


def _refuse_ranks(count: int) -> tuple[str, str] | None:
    return (str(count), "at least one rank is needed") if count < 1 else None


def _refuse_nodes(count: int | None) -> tuple[str, str] | None:
    return (str(count), "at least one node is needed") if count is not None and count < 1 else None


def _refuse_variables(env: Mapping[str, str]) -> tuple[str, str] | None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            return repr(name), "this is not a variable's name and value"
        if name in RANK_VARIABLES or name in VISIBILITY_VARIABLES.values() or name.startswith("ACLCMP_"):
            return name, "aclcmp sets this variable for every rank; it cannot be overridden"
    return None


def _refuse_seconds(seconds: float | None) -> tuple[str, str] | None:
    wrong = seconds is not None and not seconds > 0
    return (f"{seconds:g}", "give a positive number of seconds") if wrong else None


def parse_second_look(text: str) -> float:
    """Return the seconds that `--second-look` allows: infinity for "all", 0 for "none". Raises ValueError."""
    seconds = {"all": inf, "none": 0.0}.get(text)
    if seconds is None:
        try:
            seconds = float(text)
        except ValueError:
            seconds = nan
        if not 0 < seconds < inf:
            raise ValueError(f"{text!r} is none of a positive number of seconds, all and none")
    return seconds


def _refuse_second_look(text: str | None) -> tuple[str, str] | None:
    try:
        if text is not None:
            parse_second_look(text)
    except ValueError as error:
        return "", str(error)
    return None


def parse_injected(text: str) -> tuple[str, ...]:
    """Return the labels of `--inject`. Raises ValueError where there are none."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError("no label; give ids with commas between them")
    return names


def _refuse_injected(text: str | None) -> tuple[str, str] | None:
    try:
        if text is not None:
            parse_injected(text)
    except ValueError as error:
        return "", str(error)
    return None


def _refuse_labels(pattern: str) -> tuple[str, str] | None:
    try:
        parse_labels(pattern)
    except LabelError as error:
        return "", str(error).removeprefix("--labels ")
    return None


def _refuse_tasks(text: str) -> tuple[str, str] | None:
    try:
        if text:
            parse_tasks(text)
    except LabelError as error:
        return "", str(error).removeprefix("--tasks ")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """The options that concern the ranks and what they record."""

    ranks: Annotated[int, Option("Number of ranks.", HelpGroup.RANKS, _refuse_ranks, override=True)] = 1
    nodes: Annotated[
        int | None,
        Option("Spread the ranks evenly over this many nodes.", HelpGroup.RANKS, _refuse_nodes, override=True),
    ] = None
    """Exactly this many nodes, with equally many ranks each. None: as few as hold the devices."""
    device: Annotated[Device, Option("What each rank gets.", HelpGroup.RANKS, override=True)] = Device.AUTO
    env: Annotated[
        Mapping[str, str],
        Option("Set a variable for the ranks. Repeatable.", HelpGroup.RANKS, _refuse_variables, "K=V", override=True),
    ] = field(default_factory=dict)
    timeout: Annotated[
        float | None,
        Option(
            "Seconds after which ranks that still run are stopped.", HelpGroup.RANKS, _refuse_seconds, override=True
        ),
    ] = None
    visibility: Annotated[
        Visibility,
        Option("A rank sees all granted devices of its node (as under torchrun), or its own.", HelpGroup.RANKS),
    ] = Visibility.NODE
    launcher: Annotated[
        Launcher,
        Option("script: the command starts its own ranks (torchrun, mpirun), once per node.", HelpGroup.RANKS),
    ] = Launcher.RAY
    strict: Annotated[bool, Option("A label that cannot be recorded raises in the script.", HelpGroup.CAPTURE)] = False
    low_level: Annotated[
        bool,
        Option("Make the accelerated library dump its tensors, for labels with a tensor_path.", HelpGroup.CAPTURE),
    ] = False
    labels: Annotated[
        str, Option("Record only labels in whose id this is found.", HelpGroup.CAPTURE, _refuse_labels, "REGEX")
    ] = ""
    tasks: Annotated[str, Option("Record only these tasks.", HelpGroup.CAPTURE, _refuse_tasks, "0-3,7")] = ""
    inputs: Annotated[
        bool, Option("Record the inputs of watched modules too; golden's serve --local.", HelpGroup.CAPTURE)
    ] = False
    kv_cache: Annotated[
        bool, Option("Record what the KV cache of an engine holds, as attention reads it.", HelpGroup.CAPTURE)
    ] = False
    capture: Annotated[
        Capture,
        Option("What is kept of a tensor: all, moments and a random projection, or moments alone.", HelpGroup.CAPTURE),
    ] = Capture.FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions(LaunchOptions):
    """The options that `aclcmp run` and the section of a cluster file share."""

    exec: Annotated[
        str,
        Option(
            'Command to run on every rank, e.g. "bash run.sh". No shell.',
            HelpGroup.RANKS,
            _refuse_command,
            override=True,
        ),
    ]
    no_compare: Annotated[bool, Option("Run and record only; compare later.", HelpGroup.JUDGING)] = False
    policy: Annotated[
        Path | None,
        Option("Policy (TOML): limits, allowed and ignored labels, floors.", HelpGroup.JUDGING, metavar="FILE"),
    ] = None
    floor: Annotated[
        str | None,
        Option(
            "Where noise floors come from: a second run, its input perturbed or not, or a stored profile.",
            HelpGroup.JUDGING,
            metavar="perturb|repeat|PROFILE",
        ),
    ] = None
    fail_on: Annotated[
        FailOn | None,
        Option(
            "What makes the exit code 1: any divergence, only one that is its own, or drift too. Default: any.",
            HelpGroup.JUDGING,
        ),
    ] = None
    second_look: Annotated[
        str | None,
        Option(
            "How long labels that do not match are looked at again. Default: 30 % of the comparison's time.",
            HelpGroup.JUDGING,
            _refuse_second_look,
            metavar="SECONDS|all|none",
        ),
    ] = None
    stop_at: Annotated[
        StopAt, Option("Stop the ranks as soon as a label is seen that is wrong by itself.", HelpGroup.JUDGING)
    ] = StopAt.NEVER
    clean: Annotated[bool, Option("Remove the library's dumps that match.", HelpGroup.OUTPUT)] = False
    fetch: Annotated[
        Fetch,
        Option(
            "What is brought here from the other hosts at the end: shards, or logs and dumps as well.",
            HelpGroup.OUTPUT,
            override=True,
        ),
    ] = Fetch.REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(JobOptions):
    """All options of `aclcmp run`."""

    address: Annotated[
        str | None, Option("Join the Ray cluster at HOST:PORT (or auto). Default: start a local Ray.", HelpGroup.RAY)
    ] = None
    output: Annotated[
        Path | None, Option("New run directory. Default: aclcmp-runs/<date>-<time>.", HelpGroup.OUTPUT)
    ] = None
    local: Annotated[
        Path | None,
        Option(
            "Compute each watched module of the actual side from golden's values, those of this run, to tell the error "
            "that is its own.",
            HelpGroup.JUDGING,
            metavar="GOLDEN_RUN",
        ),
    ] = None
    inject: Annotated[
        str | None,
        Option(
            "Put golden's values in the place of these labels and go on: do they mend the end?",
            HelpGroup.JUDGING,
            _refuse_injected,
            metavar="LABEL,...",
        ),
    ] = None
    golden: Annotated[
        Path | None, Option("The run that --inject takes golden's values from.", HelpGroup.JUDGING, metavar="RUN")
    ] = None
    as_json: Annotated[bool, Option("Print report.json on stdout, for programs.", HelpGroup.OUTPUT, flag="--json")] = (
        False
    )


@dataclass(frozen=True, slots=True)
class Job(LaunchOptions):
    """One launch as the user asked for it."""

    command: tuple[str, ...]
    cwd: Path
    perturb: int | None = None
    """Seed by which `aclcmp.perturb` changes the last bit of the model's input; None: it does not."""
    golden: Path | None = None
    """Absolute path of the run whose golden values are put into the actual side; None: none are."""
    golden_shards: Path | None = None
    """The folder of its shards."""
    inject: tuple[str, ...] = ()
    """The labels that they replace; empty: all."""

    @classmethod
    def of(cls, options: JobOptions, cwd: Path) -> Job:
        """Return the launch that options ask for. Raises ValueError for a command that cannot be split."""
        launch = {each.name: getattr(options, each.name) for each in fields(LaunchOptions)}
        return cls(split_command(options.exec), cwd, **launch)


@dataclass(frozen=True, slots=True)
class Placement:
    """One rank and where it runs."""

    actor: int
    """Index of the actor that hosts it."""
    rank: int
    local_rank: int
    local_world_size: int
    group_rank: int
    """Of its node among the job's nodes."""
    node_id: str
    ip: str
    host: str
    devices: tuple[str, ...]
    """Its own device ids on the node; empty on CPU."""
    visible: tuple[str, ...]
    """The device ids that it sees, ascending."""

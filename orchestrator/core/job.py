"""What is to be launched, as the user asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from aclcmp.labeling.capture import Capture


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


class Fetch(str, Enum):
    """How much of a run the driver's host gets: each has what is before it, too."""

    REPORT = "report"
    SHARDS = "shards"
    ALL = "all"
    """Logs and the library's dumps as well."""


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

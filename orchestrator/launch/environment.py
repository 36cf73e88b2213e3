"""The environment of a rank, and the part of it that may stand in run.json. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling import identity
from aclcmp.labeling.capture import Capture
from aclcmp.orchestrator.core.job import RANK_VARIABLES, VISIBILITY_VARIABLES, Device, Job, Launcher, Placement
from aclcmp.orchestrator.core.redaction import sounds_secret

NODE_SPECIFIC = frozenset(
    {
        "HOME",
        "HOSTNAME",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LOGNAME",
        "OLDPWD",
        "PATH",
        "PWD",
        "PYTHONHOME",
        "SHELL",
        "SHLVL",
        "SSH_CLIENT",
        "SSH_CONNECTION",
        "SSH_TTY",
        "TMPDIR",
        "USER",
        "VIRTUAL_ENV",
        "GLOO_SOCKET_IFNAME",
        "HCCL_IF_IP",
        "HCCL_SOCKET_IFNAME",
        "NCCL_SOCKET_IFNAME",
    }
) | frozenset(VISIBILITY_VARIABLES.values())
"""Variables that differ by host (CANN's set_env.sh sets some of them): every other node keeps its own."""

_RECORDED = frozenset(
    {
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "PYTHONHASHSEED",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "VIRTUAL_ENV",
        "MASTER_ADDR",
        "MASTER_PORT",
        "WORLD_SIZE",
        "NNODES",
        "NPROC_PER_NODE",
    }
)
_RECORDED_PREFIXES = (
    "ACL_",
    "ACLTRANSFORMER_",
    "AIT_",
    "ASCEND_",
    "ASDOPS_",
    "ATB_",
    "CUBLAS_",
    "CUDA_",
    "GLOO_",
    "HCCL_",
    "LCCL_",
    "NCCL_",
    "PYTORCH_",
    "TORCH_",
    "TORCHINDUCTOR_",
)
_OF_A_JOB = ("RAY_JOB_", "RAY_EXPERIMENTAL_NOSET_", "RAY_worker_niceness", "RAY_WORKER_NICENESS")
"""Variables that Ray sets for the entry point of a submitted job; a script with a Ray of its own must not get them."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Facts that all ranks of a job share."""

    run_id: str
    shards: Path
    """Absolute: an actor's working directory may vanish."""
    address: str
    port: int
    nodes: int


def rank_environment(
    job: Job,
    device: Device,
    place: Placement,
    rendezvous: Rendezvous,
    driver: Mapping[str, str],
    *,
    same_node: bool,
    interface: str | None,
) -> dict[str, str]:
    """Return the variables of one command: the driver's, the user's additions, torchrun's, and ours.

    On other nodes than the driver's (`same_node` False) the driver's node-specific variables are left out.
    OMP_NUM_THREADS is the driver's if it is set there, else 1 where several ranks share a node, as under torchrun. With
    `--device cpu` torch loads no device's backend by itself. A command of launcher `script` gets no RANK, because it
    sets the ranks of the processes that it starts.
    """
    script = job.launcher is Launcher.SCRIPT
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in driver
    environment = {
        name: value
        for name, value in driver.items()
        if name not in RANK_VARIABLES
        and not name.startswith(("ACLCMP_", "AIT_CMP_"))
        and (same_node or name not in NODE_SPECIFIC)
        and not (submitted and name.startswith(_OF_A_JOB))
    }
    environment.setdefault("PYTHONUNBUFFERED", "1")  # so that lines come while the rank runs
    if place.local_world_size > 1 and not script:
        environment.setdefault("OMP_NUM_THREADS", "1")
    if rendezvous.nodes > 1 and interface is not None:
        # A host name that resolves to a loopback address, common in /etc/hosts, sends gloo to the wrong interface.
        for name in ("GLOO_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            environment.setdefault(name, interface)
        environment.setdefault("HCCL_IF_IP", place.ip)
    if job.device is Device.CPU:
        # torch would load torch_npu by itself, which fails where CANN or the driver is missing.
        environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    environment.update(job.env)
    environment |= {
        "MASTER_ADDR": rendezvous.address,
        "MASTER_PORT": str(rendezvous.port),
        "GROUP_RANK": str(place.group_rank),
        identity.RUN_ID: rendezvous.run_id,
        identity.SHARD_DIR: str(rendezvous.shards),
    }
    environment |= _variables_of_labels(job)
    if script:
        environment |= {
            "NNODES": str(rendezvous.nodes),
            "NODE_RANK": str(place.group_rank),
            "NPROC_PER_NODE": str(place.local_world_size),
        }
    else:
        environment |= {
            "RANK": str(place.rank),
            "WORLD_SIZE": str(job.ranks),
            "LOCAL_RANK": str(place.local_rank),
            "LOCAL_WORLD_SIZE": str(place.local_world_size),
        }
    if device in VISIBILITY_VARIABLES:
        environment[VISIBILITY_VARIABLES[device]] = ",".join(place.visible)
    return environment


def _variables_of_labels(job: Job) -> dict[str, str]:
    """Return the variables that say what is recorded, and what is put into the actual side."""
    values = {
        identity.STRICT: "1" if job.strict else "",
        identity.CAPTURE: job.capture.value if job.capture is not Capture.FULL else "",
        identity.PERTURB: "" if job.perturb is None else str(job.perturb),
        identity.INPUTS: "1" if job.inputs else "",
        identity.KV_CACHE: "1" if job.kv_cache else "",
        identity.GOLDEN: "" if job.golden_shards is None else str(job.golden_shards),
        identity.INJECT: ",".join(job.inject),
        identity.LABELS: job.labels,
        identity.TASKS: job.tasks,
    }
    return {name: value for name, value in values.items() if value}


def variables_for_record(environment: Mapping[str, str]) -> dict[str, str]:
    """Select the variables of a rank that run.json records: those of an allow-list, unless they sound like a secret."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if (name in _RECORDED or name.startswith(_RECORDED_PREFIXES)) and not sounds_secret(name)
    }

"""The rank of this process, from the environment that the launcher (or torchrun, MPI, Slurm) sets."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

RUN_ID = "ACLCMP_RUN_ID"
"""The launch time as `YYYYmmdd-HHMMSS`; the same on every rank."""
SHARD_DIR = "ACLCMP_SHARD_DIR"
"""Absolute folder for shards. Labels are recorded only when this is set."""
STRICT = "ACLCMP_STRICT"
"""`1`: a label that cannot be recorded raises in the user's script."""
LABELS = "ACLCMP_LABELS"
"""Regular expression: only labels whose id contains a match are recorded."""
TASKS = "ACLCMP_TASKS"
"""Only labels of these tasks are recorded, e.g. `0-3,7`."""
PERTURB = "ACLCMP_PERTURB"
"""A seed, an integer: `aclcmp.perturb` changes its tensor in the last bit."""
CAPTURE = "ACLCMP_CAPTURE"
"""How much of a tensor is kept: a value of `aclcmp.labeling.capture.Capture`."""
KV_CACHE = "ACLCMP_KV_CACHE"
"""`1`: the plug-ins of engines label what the KV cache holds."""
WEIGHTS = "ACLCMP_WEIGHTS"
"""`0`: the plug-ins of engines do not hash the model's weights."""
DUMP_DIR = "ACLCMP_DUMP_DIR"
"""Absolute folder into which the accelerated library is identity to dump its tensors; unset without `--low-level`."""

INPUTS = "ACLCMP_INPUTS"
"""`1`: the inputs of watched modules are labelled too."""
GOLDEN = "ACLCMP_GOLDEN"
"""Absolute folder of a golden run's shards: its values are put into the actual side's modules."""
INJECT = "ACLCMP_INJECT"
"""Ids, by commas, of the labels that golden's values replace; unset beside ACLCMP_GOLDEN: all, and none is recorded
that is not computed from them."""

_RANK_NAMES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
_WORLD_NAMES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
_LOCAL_NAMES = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
_LOCAL_WORLD_NAMES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")


@dataclass(frozen=True, slots=True)
class RankIdentity:
    """One process of the job; ranks and sizes as torchrun defines them."""

    run_id: str
    rank: int
    world_size: int
    local_rank: int


def rank_identity(environ: Mapping[str, str] = os.environ) -> RankIdentity:
    """Read the identity; a process without any rank variable is rank 0 of 1."""
    rank = _first(environ, _RANK_NAMES, 0)
    return RankIdentity(
        run_id=environ.get(RUN_ID, ""),
        rank=rank,
        world_size=_first(environ, _WORLD_NAMES, rank + 1),
        local_rank=_first(environ, _LOCAL_NAMES, rank),
    )


def distributed_identity(identity: RankIdentity) -> RankIdentity:
    """Return the identity of this process in torch.distributed, where its group is larger than the job of `identity`.

    The workers of an engine inherit the environment of the process that started them, and so its rank. A group that has
    no more processes than the environment states is a part of that job.
    """
    torch = sys.modules.get("torch")
    dist = getattr(torch, "distributed", None)
    try:
        if dist is None or not dist.is_available() or not dist.is_initialized():
            return identity
        rank, world_size = int(dist.get_rank()), int(dist.get_world_size())
    except Exception:  # a process group that is being taken down
        return identity
    return identity if world_size <= identity.world_size else RankIdentity(identity.run_id, rank, world_size, rank)


def ranks_here(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of ranks on this host, 1 where the environment does not state it."""
    return max(_first(environ, _LOCAL_WORLD_NAMES, 1), 1)


def _first(environ: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    """Return the value of the first variable that is set to a number."""
    return next((int(environ[name]) for name in names if environ.get(name, "").isdecimal()), default)

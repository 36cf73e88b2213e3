"""Which rank this process is, read from the environment that the launcher (or torchrun, MPI, Slurm) sets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

RUN_ID = "ACLCMP_RUN_ID"
"""The launch time as `YYYYmmdd-HHMMSS`; the same on every rank."""
SHARD_DIR = "ACLCMP_SHARD_DIR"
"""Absolute folder for shards. Labels are recorded only when this is set."""
STRICT = "ACLCMP_STRICT"
"""`1`: a label that cannot be recorded raises in the user's script."""

_RANK_NAMES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
_WORLD_NAMES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
_LOCAL_NAMES = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


@dataclass(frozen=True, slots=True)
class RankIdentity:
    """One process of the job, torchrun's sense."""

    run_id: str
    rank: int
    world_size: int
    local_rank: int


def rank_identity(environ: Mapping[str, str] = os.environ) -> RankIdentity:
    """Read the identity; a process without any rank variable is rank 0 of 1."""

    def first(names: tuple[str, ...], default: int) -> int:
        for name in names:
            if environ.get(name, "").isdecimal():
                return int(environ[name])
        return default

    rank = first(_RANK_NAMES, 0)
    return RankIdentity(
        run_id=environ.get(RUN_ID, ""),
        rank=rank,
        world_size=first(_WORLD_NAMES, rank + 1),
        local_rank=first(_LOCAL_NAMES, rank),
    )

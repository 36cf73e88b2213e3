"""What runs on the node that holds the shards. Imports neither torch nor torch_npu."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.compare.jit import give_back_compiler
from aclcmp.orchestrator.compare.pair import read_pair_stats, warm_up
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.plan.regions import Pair

if TYPE_CHECKING:
    from aclcmp.labeling.shard.reader import ShardIndex


class CompareActor:
    """Body of the Ray actor: rows of statistics go out, tensors never do."""

    def __init__(self) -> None:
        """Load the kernels, which the driver has compiled if it had to."""
        give_back_compiler()
        warm_up()
        give_back_compiler()

    def read_indices(self, folder: Path) -> tuple[list[ShardIndex], list[str]]:
        """Index the shards in a folder of this node; also say in words which could not be read."""
        return read_indices(folder)

    def compare(self, pairs: Sequence[Pair]) -> list[PairStats | str]:
        """Return each pair's statistics, or in words why it could not be read."""
        outcomes: list[PairStats | str] = []
        for pair in pairs:
            try:
                outcomes.append(read_pair_stats(pair))
            except (AclcmpError, OSError) as error:
                outcomes.append(" ".join(str(error).split()))
            except Exception as error:  # one impossible pair must not take those beside it along
                outcomes.append(f"cannot be compared: {type(error).__name__}: {' '.join(str(error).split())}")
        return outcomes


def read_indices(folder: Path) -> tuple[list[ShardIndex], list[str]]:
    """Index all shards in a folder; also say in words which could not be read."""
    # here and not above: actors that only compare read by offset and save HDF5's 13 MiB
    from aclcmp.labeling.shard.files import shards_in
    from aclcmp.labeling.shard.reader import read_shard

    indices: list[ShardIndex] = []
    problems: list[str] = []
    for files in shards_in(folder):
        try:
            indices.append(read_shard(files))
        except (AclcmpError, OSError) as error:
            problems.append(str(error))
    return indices, problems

"""What runs on the node that holds the shards. Imports neither torch nor torch_npu."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.shard.files import shards_in
from aclcmp.labeling.shard.reader import ShardIndex, read_shard
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.plan.regions import Pair


class CompareActor:
    """Body of the Ray actor: rows of statistics go out, tensors never do."""

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
        return outcomes


def read_indices(folder: Path) -> tuple[list[ShardIndex], list[str]]:
    """Index all shards in a folder; also say in words which could not be read."""
    indices, problems = [], []
    for files in shards_in(folder):
        try:
            indices.append(read_shard(files))
        except (AclcmpError, OSError) as error:
            problems.append(str(error))
    return indices, problems

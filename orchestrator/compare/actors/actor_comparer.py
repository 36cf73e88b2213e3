"""The actors of a pool as what compares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.comparison import compare_pairs, count_ties
from aclcmp.orchestrator.compare.actors.second_looks import look_again
from aclcmp.orchestrator.core.diagnosis import Looks, Suspect, TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes


@dataclass(frozen=True, slots=True)
class ActorComparer:
    """A Comparer that works where the files of ranks are."""

    pool: ActorPool
    places: FileLocations

    def compare_pairs(self, pairs: Sequence[Pair], advance: Callable[[int, int], None]) -> Outcomes:
        """Compare each pair where most of it lies."""
        return compare_pairs(self.pool, pairs, self.places, advance)

    def count_ties(self, questions: Sequence[TieQuestion]) -> dict[tuple[LabelKey, int], int]:
        """Count ties where the ids lie."""
        return count_ties(self.pool, questions, self.places)

    def look_again(self, suspects: Sequence[Suspect], seconds: float, advance: Callable[[int], None]) -> Looks:
        """Take a second look where most of each suspect lies."""
        return look_again(self.pool, suspects, self.places, seconds, advance)

    def remove_dumps(self, files: Mapping[int, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete files on the nodes where their ranks ran."""
        by_node: dict[str, list[Path]] = defaultdict(list)
        for rank, paths in files.items():
            by_node[self.places.home(rank)] += paths
        return self.pool.remove_dumps(by_node, within)

"""Interface of what compares: threads of this process (`local_comparer.py`) or a cluster's actors (`actors/`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aclcmp.orchestrator.core.diagnosis import Looks, Suspect, TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes


class Comparer(Protocol):
    """Compares pairs, and takes a second look at them. On KeyboardInterrupt it returns what is done."""

    def compare_pairs(self, pairs: Sequence[Pair], advance: Callable[[int, int], None]) -> Outcomes:
        """Return the statistics of each (label, rank), or a message why there are none.

        `advance(how many (label, rank), bytes)` is called as parts of the work are done.
        """

    def count_ties(self, questions: Sequence[TieQuestion]) -> dict[tuple[LabelKey, int], int]:
        """Return by (label, rank) how many of the ids that differ are ties. KeyboardInterrupt passes on."""

    def look_again(self, suspects: Sequence[Suspect], seconds: float, advance: Callable[[int], None]) -> Looks:
        """Return the finding on each (label, rank) that does not match, or a message why there is none.

        The most telling suspects come first; those for which the time does not suffice have the message NO_TIME.
        `advance(how many (label, rank))` is called as they are done.
        """

    def remove_dumps(self, files: Mapping[int, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete dumped files, given by rank, below `within`; return how many files and bytes were deleted."""

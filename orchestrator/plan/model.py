"""A plan as data: which pairs to compare, and which (label, rank) cannot be compared and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aclcmp.orchestrator.plan.levels import Level
from aclcmp.orchestrator.plan.regions import LabelKey, Pair


@dataclass(frozen=True, slots=True)
class SideFacts:
    """What was recorded of one side of a label on one rank."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    device: str
    call_site: str
    """`file:line` of the set_label call."""
    seq: int
    """Number of the label on its rank, from 0."""
    time: float
    """Seconds since the epoch."""
    capture: str = "full"
    """How much of the tensor was kept: a value of `aclcmp.labeling.capture.Capture`."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a label on one rank; None where a side is absent."""

    golden: SideFacts | None
    actual: SideFacts | None


class GapKind(Enum):
    """Why a (label, rank) is not compared."""

    MISSING_GOLDEN = "missing golden"
    MISSING_ACTUAL = "missing actual"
    MISMATCH = "mismatch"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Gap:
    """A (label, rank) that cannot be compared; `reason` says why in one line."""

    key: LabelKey
    rank: int
    kind: GapKind
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All there is to compare, and all that cannot be."""

    keys: tuple[LabelKey, ...]
    """In golden order."""
    pairs: tuple[Pair, ...]
    """Those of one (label, rank) follow each other."""
    gaps: tuple[Gap, ...]
    uncovered: dict[tuple[LabelKey, int], str]
    """Of (label, rank) that are compared in part: what is not, in words."""
    sides: dict[tuple[LabelKey, int], Sides]
    levels: dict[LabelKey, Level]
    silent_ranks: tuple[int, ...]
    """Ranks that recorded no label."""
    unreadable: int
    """Shards and lines of journals that could not be read: how many labels were in them is not known."""
    notes: tuple[str, ...]

    @property
    def held(self) -> int:
        """Number of (label, rank) that can be compared."""
        return len({(pair.key, pair.rank) for pair in self.pairs})

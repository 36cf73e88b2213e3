"""Evidence for verdicts, by label and rank."""

from __future__ import annotations

from dataclasses import dataclass

from aclcmp.orchestrator.core.floors import Floor
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.plan import GapKind, SideFacts
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.tokens import TokenEvidence
from aclcmp.orchestrator.core.weights import WeightReport

NOT_REACHED = "was not compared"
"""The reason of a gap where the comparison was interrupted before."""


@dataclass(frozen=True, slots=True)
class ReplicaVerdict:
    """Ranks of one side that hold something else than others, where all ought to hold the same."""

    key: LabelKey
    side: str
    """ "golden" or "actual"."""
    declared: bool
    """Whether a layout says that they are replicas; else most of them being equal does."""
    odd: tuple[int, ...]
    agreeing: tuple[int, ...]
    rel_l2: float
    """Largest relative L2 error of an odd rank's tensor against those that agree."""
    reason: str
    unread: tuple[int, ...] = ()
    """Ranks whose tensor could not be compared with that of the others."""
    own_ranks: bool = True
    """Whether the ranks are those of the report: golden ones of another run are not."""


@dataclass(frozen=True, slots=True)
class OwnError:
    """The error of what was computed from golden's values, in a run with `--local`: a label's own one.

    The first three are those of metrics; infinite where values are not finite on one side alone.
    """

    rel_l2: float
    worst_row: float
    row_p50: float
    rms: float
    """Root mean square of the error."""
    rows: int
    """Number of rows, 0 where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEvidence:
    """Facts about one label on one rank. `stats` and `metrics` are None where nothing was compared."""

    rank: int
    golden: SideFacts | None
    actual: SideFacts | None
    layout: str = ""
    stats: PairStats | None = None
    metrics: Metrics | None = None
    dtypes: tuple[str, str] = ("", "")
    """Element types of the tensors that were compared, golden's first: not always those of this rank's own labels."""
    gap: GapKind | None = None
    """Why nothing was compared, in kind; of a mismatch with `stats` a part was."""
    gap_reason: str = ""
    """Why nothing was compared, in words; of a mismatch with `stats`: how the shapes differ, and which part was."""
    uncovered: str = ""
    """The region of the whole for which one side is absent, in words; "" where all was compared."""
    worst_row_name: str = ""
    """The worst row in words, where rows have names: "request 2, position 48, token 1234"."""
    summed: tuple[int, ...] = ()
    """Ranks whose sum was compared; empty where no sum was."""
    ties: int = 0
    """How many of the values that differ are ids whose scores differ by no more than the noise."""
    floors: tuple[Floor, ...] = ()
    """Measured noise floors of the label, the best source first."""
    own: OwnError | None = None
    """None where it was not measured."""


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """One label over its ranks, which ascend."""

    key: LabelKey
    level: Level
    ranks: tuple[RankEvidence, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run, labels in golden order."""

    labels: tuple[LabelEvidence, ...]
    replicas: tuple[ReplicaVerdict, ...] = ()
    """Those that differ beyond the limits of the dtype table, or could not be compared."""
    unreadable: int = 0
    silent_ranks: tuple[int, ...] = ()
    run_failed: bool = False
    weights: WeightReport | None = None
    """What ranks hold of golden's weights; None where a side recorded none."""
    tokens: tuple[TokenEvidence, ...] = ()
    """Of labels that are logits."""
    independent: bool = False
    """True if no label was computed from another, so that each is judged by itself."""

"""Verdicts as data: one per (label, rank), folded into labels, folded into a judgement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from operator import attrgetter
from typing import Any

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.compact import bulk_construct, make_copier, make_lazy, slots_of
from aclcmp.orchestrator.core.evidence import RankEvidence, ReplicaVerdict
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.tokens import TokenVerdicts
from aclcmp.orchestrator.core.weights import WeightReport
from aclcmp.orchestrator.errors import ExitCode

_NO_LEVEL = Level()


class StatusGroup(Enum):
    """Kinds of statuses: what they mean for the answer."""

    GOOD = "good"
    WARNING = "warning"
    """Not as it should be, and no reason to fail."""
    WRONG = "wrong"
    """A reason for exit code 1."""
    GAP = "gap"
    """Not compared, or only in part: a reason for exit code 4."""


class Status(str, Enum):
    """Result of comparing one (label, rank), and how it is ordered, stored and shown."""

    #         value, number, severity, group, mark, ascii, style, colour, point
    MATCH = "match", 1, 0, StatusGroup.GOOD, "·", ".", "green", "match", "circle"
    DRIFT = "drift", 2, 10, StatusGroup.WARNING, "~", "~", "yellow", "drift", "triangle-up"
    DIVERGED = "diverged", 3, 60, StatusGroup.WRONG, "✗", "x", "bold red", "wrong", "x"
    NONFINITE = "nonfinite", 4, 50, StatusGroup.WRONG, "N", "N", "bold red", "wrong", "star"
    MISMATCH = "mismatch", 5, 30, StatusGroup.GAP, "≠", "#", "magenta", "gap", "circle-open"
    MISSING = "missing", 6, 20, StatusGroup.GAP, "?", "?", "magenta", "gap", "circle-open"
    FAILED = "failed", 7, 40, StatusGroup.GAP, "!", "!", "magenta", "gap", "circle-open"

    _value_: str
    number: int
    """What report.h5 stores. A number keeps its meaning for ever; 0 stands for no verdict."""
    severity: int
    """Of several statuses the one with the largest severity counts."""
    group: StatusGroup
    mark: str
    """Its symbol, one terminal cell wide."""
    ascii: str
    """The symbol where the terminal shows ASCII only."""
    style: str
    """Its colour on the terminal, as rich names it."""
    colour: str
    """Its colour on the page: a class of grid.css, one of match, drift, wrong and gap."""
    point: str
    """Its marker in the page's charts, as Plotly names it."""

    def __new__(
        cls,
        value: str,
        number: int,
        severity: int,
        group: StatusGroup,
        mark: str,
        ascii: str,
        style: str,
        colour: str,
        point: str,
    ) -> Status:
        """Make a member whose value is only its name in reports."""
        status = str.__new__(cls, value)
        status._value_ = value
        status.number, status.severity, status.group = number, severity, group
        status.mark, status.ascii, status.style, status.colour, status.point = mark, ascii, style, colour, point
        return status


WRONG = tuple(status for status in Status if status.group is StatusGroup.WRONG)
"""The statuses that make the exit code 1."""


def worst(statuses: Iterable[Status]) -> Status:
    """Return the most severe of at least one status."""
    return max(set(statuses), key=attrgetter("severity"))


class Origin(str, Enum):
    """Origin of a divergence: the label itself, or a label before it."""

    OWN = "own"
    INHERITED = "inherited"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits against which the errors of one (label, rank) were held."""

    warn: float
    fail: float
    source: str
    """Where the limits come from, e.g. "bfloat16 table", "3 x reference floor"."""
    rows: float = 1.0
    """How many times larger they are for the worst row."""
    instead_of: float = inf
    """`fail` of the limits that a rule of the policy replaced."""
    dtype: str = ""
    """The element type as which the label counts."""
    scale: float = 0.0
    """How large the values of the labels before it are, root mean square; 0 where that is not known."""

    def is_of(self, source: FloorSource) -> bool:
        """Tell whether they are multiples of a floor that was measured so."""
        return self.source.endswith(f" {source.value} floor")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankVerdict(RankEvidence):
    """The verdict on one label on one rank, with what it was taken from."""

    status: Status
    origin: Origin | None
    reason: str
    """One line: why this status."""
    bitwise: bool
    limits: Limits | None
    """None where nothing was compared."""
    margin: float | None
    """Largest error divided by its limit: above 1 it diverged; None where nothing was held against a limit."""
    excused: str = ""
    """Why it does not count, where a policy allows it to diverge or ignores the label; "" where it counts."""
    ignored: bool = False
    """Whether the policy ignores the label, so that it is not in the coverage either."""


def is_price(status: Status, rel_l2: float, dtypes: Sequence[str], limits: Limits | None) -> bool:
    """Tell whether an error is the price of quantisation: more than round-off, and within what was measured for it."""
    if limits is None or not limits.is_of(FloorSource.QUANTISED):
        return False
    round_off = max((DTYPES[each].eps or 0.0 for each in dtypes), default=0.0) / 2
    return status in (Status.MATCH, Status.DRIFT) and rel_l2 > round_off


_SLOTS = slots_of(RankVerdict)
_OF_EVIDENCE = slots_of(RankEvidence)
make_lazy(RankVerdict, "reason")
changed = make_copier(RankVerdict, _SLOTS)
"""`changed(verdict, **changes)` is the verdict with other fields; a reason that is not in words yet stays so."""


def verdicts_from(count: int, columns: Mapping[str, Iterable[Any]]) -> list[RankVerdict]:
    """Return so many verdicts from columns named after their fields, all of them."""
    return bulk_construct(RankVerdict, _SLOTS, count, columns)


def verdicts_on(evidence: Sequence[RankEvidence], columns: Mapping[str, Iterable[Any]]) -> list[RankVerdict]:
    """Return the verdicts on evidence; `columns` are their fields beyond those of evidence.

    A reason may be a function of the verdict, called when it is asked for.
    """
    known = {name: map(slot.__get__, evidence) for name, slot in _OF_EVIDENCE.items()}
    return verdicts_from(len(evidence), {**known, **columns})


@dataclass(frozen=True, slots=True)
class LabelVerdict:
    """One label over its ranks; `status` is the worst of them."""

    key: LabelKey
    status: Status
    ranks: tuple[RankVerdict, ...]
    level: Level = _NO_LEVEL
    root: LabelKey | None = None
    """The label, or the weight, that it inherits from, where all that is wrong with it is inherited."""

    @property
    def differing(self) -> list[RankVerdict]:
        """The verdicts of the ranks that are wrong, or if none is, of those that drift."""
        wrong = [verdict for verdict in self.ranks if verdict.status in WRONG]
        return wrong or [verdict for verdict in self.ranks if verdict.status is Status.DRIFT]


@dataclass(frozen=True, slots=True)
class FirstDivergence:
    """The first label in golden order that is wrong by itself and counts; or before all labels a wrong weight."""

    key: LabelKey
    """Of a weight its name, in task 0."""
    ranks: tuple[int, ...]
    origin: Origin
    why: str
    call_site: str
    of_weight: bool = False


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many (label, rank) there were, and what became of them."""

    compared: int
    missing_golden: int
    missing_actual: int
    mismatch: int
    failed: int
    uncovered: int
    """Compared in part: for a region of the whole one side is absent."""
    replicas: int
    """Replicas that differ or could not be compared, on ranks that no verdict tells it of."""
    unreadable: int
    """Shards and lines of journals that could not be read."""
    silent_ranks: tuple[int, ...]
    """Ranks that recorded no label at all."""
    ignored: int = 0
    """Left out of all counts, because the policy ignores their labels."""

    @property
    def complete(self) -> bool:
        """True if there was something to compare, and everything was compared."""
        gaps = (self.missing_golden, self.missing_actual, self.mismatch, self.failed, self.uncovered, self.replicas)
        return self.compared > 0 and not any(gaps) and not self.unreadable and not self.silent_ranks


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer for a run. `verdict` is "match", "diverged", "failed" or "incomplete"."""

    verdict: str
    exit_code: ExitCode
    first_divergence: FirstDivergence | None
    first_by_rank: dict[int, LabelKey]
    labels: tuple[LabelVerdict, ...]
    """In golden order."""
    coverage: Coverage
    replicas: tuple[ReplicaVerdict, ...] = ()
    weights: WeightReport | None = None
    """What ranks hold of golden's weights; None where a side recorded none."""
    tokens: tuple[TokenVerdicts, ...] = ()
    """Of labels that are logits."""

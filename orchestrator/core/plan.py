"""A plan as data: which pairs to compare, and which (label, rank) cannot be compared and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from operator import attrgetter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey, Pair


@dataclass(frozen=True, slots=True)
class SideFacts:
    """Facts recorded for one side of a label on one rank."""

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
    inputs: tuple[str, ...] = ()
    """Ids of the labels that it was computed from, where the user named them."""

    @property
    def facts(self) -> SideFacts:
        """Itself."""
        return self


class HasSideFacts(Protocol):
    """Object that gives its facts once the report asks for them."""

    @property
    def facts(self) -> SideFacts:
        """The recorded facts."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a label on one rank; None where a side is absent."""

    golden: HasSideFacts | None
    actual: HasSideFacts | None


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
class Replicas:
    """Tensors of one side on several ranks that ought to be the same, but are not bit by bit.

    `clusters` are ranks whose tensors are equal by their checksums, the largest first. The pairs of each of `against`
    compare the first rank of one cluster ("golden") with those of all others ("actual").
    """

    key: LabelKey
    side: str
    """ "golden" or "actual"."""
    declared: bool
    """Whether a layout says that they are replicas, or another side that is sharded does; else most are equal."""
    clusters: tuple[tuple[int, ...], ...]
    against: tuple[tuple[Pair, ...], ...]
    own_ranks: bool = True
    """Whether the ranks are those of the report: golden ones of another run are not."""


@dataclass(frozen=True, slots=True)
class Way:
    """One of several layouts that shapes allow: in words, and as lines of a layouts file."""

    words: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Several ways in which some ranks of a label can be compared: which one it is their values tell, or nothing."""

    options: tuple[LabelPlan, ...]
    unsettled: LabelPlan
    """What is known where the values do not tell."""
    ways: tuple[Way, ...] = ()
    """How to tell each option; empty where the question is another look at what seemed clear."""


@dataclass(frozen=True, slots=True, eq=False)
class RowNames:
    """Names of the rows of a whole that is a set of rows."""

    requests: tuple[str, ...]
    table: npt.NDArray[np.int32]
    """Shape (rows, 3): number of the request, position in it, token id (-1 where none was told)."""
    goldens: tuple[str, ...] = ()
    """Names that golden gives these requests."""
    prompts: tuple[int, ...] = ()
    """How many tokens each request's prompt has, as far as that is known, else 0."""
    following: npt.NDArray[np.int32] | None = None
    """Shape (rows,): the token that actual has behind each row's, -1 where none is told."""
    each: int = 1
    """Rows of statistics in a named one, whose heads they are; 0 where one row of statistics has all named ones."""
    blocks: npt.NDArray[np.int32] | None = None
    """Shape (rows,): the block of actual's cache that held each row, -1 for none; None where no row comes from one."""

    def words(self, first: int, last: int) -> str:
        """Return the name of the rows of statistics first <= i <= last, which may go beyond the end.

        "request 2, positions 48-50", of one row with its token.
        """
        end_of_all = len(self.table) - 1
        first, last = (min(row // self.each, end_of_all) for row in (first, last)) if self.each else (0, end_of_all)
        (request, begin, token), (other, end, _) = self.table[[first, last]].tolist()
        name = f"request {self.requests[request]}, " if self.requests[request] else ""
        if first == last:
            return f"{name}position {begin}" + (f", token {token}" if token >= 0 else "")
        if request == other:
            return f"{name}positions {begin}-{end}"
        return f"{name}position {begin} to request {self.requests[other]}, position {end}"


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """Plan of one label: for each rank the pairs that compare it, or the reason why it cannot be compared."""

    key: LabelKey
    sides: dict[int, Sides] = field(default_factory=dict)
    """By rank."""
    pairs: tuple[Pair, ...] = ()
    """Those of one rank follow each other."""
    gaps: tuple[Gap, ...] = ()
    uncovered: dict[int, str] = field(default_factory=dict)
    """Ranks of which a part is compared, and in words the part that is not."""
    replicas: tuple[Replicas, ...] = ()
    questions: tuple[Question, ...] = ()
    second_look: Callable[[], tuple[LabelPlan, ...]] | None = None
    """What else the layout may be where it was inferred and the values do not agree."""
    unlike: dict[int, str] = field(default_factory=dict)
    """Ranks whose two shapes differ, in words; their pairs compare what both have, and say so beside the mismatch."""
    rows: RowNames | None = None
    """Names of the whole's rows, where labels told them."""
    padded: bool = False
    """Whether the layout takes values for padding though nothing tells so: they count only where others prove it."""
    needs_proof: bool = False
    """Whether only the values can tell that the label is compared rightly: constant ones tell nothing."""
    unpaired: dict[int, str] = field(default_factory=dict)
    """Ranks with rows that have no partner, in words; no layout changes that."""

    @property
    def names_of_rows(self) -> RowNames | None:
        """Names of the rows of statistics, which are along the last dimension of what its pairs compare."""
        if self.rows is None or not self.pairs:
            return self.rows
        _, *features = self.pairs[0].whole_shape
        each = math.prod(features[:-1]) if features else 0
        return self.rows if each == 1 else replace(self.rows, each=each)

    def change_pairs(self, change: Callable[[Pair, str, str], Pair]) -> LabelPlan:
        """Return the plan with each pair changed, also in every option.

        `change` also takes which side each tensor of the pair is of, "golden" or "actual": those of replicas are of
        one.
        """
        look = self.second_look
        replicas = (
            replace(
                each,
                against=tuple(tuple(change(pair, each.side, each.side) for pair in pairs) for pairs in each.against),
            )
            for each in self.replicas
        )
        questions = (
            replace(
                question,
                options=tuple(option.change_pairs(change) for option in question.options),
                unsettled=question.unsettled.change_pairs(change),
            )
            for question in self.questions
        )
        return replace(
            self,
            pairs=tuple(change(pair, "golden", "actual") for pair in self.pairs),
            replicas=tuple(replicas),
            questions=tuple(questions),
            second_look=look and (lambda: tuple(option.change_pairs(change) for option in look())),
        )

    def with_part(self, other: LabelPlan) -> LabelPlan:
        """Return the plan of these ranks and those of another plan of the label together.

        Only a plan of all ranks can be looked at again.
        """
        return replace(
            self,
            sides=self.sides | other.sides,
            pairs=tuple(sorted(self.pairs + other.pairs, key=attrgetter("rank"))) if self.pairs else other.pairs,
            gaps=self.gaps + other.gaps,
            uncovered=self.uncovered | other.uncovered,
            unpaired=self.unpaired | other.unpaired,
            replicas=self.replicas + other.replicas,
            questions=self.questions + other.questions,
            second_look=(other if not self.sides else self).second_look if not (self.sides and other.sides) else None,
            unlike=self.unlike | other.unlike,
            rows=self.rows if self.rows is not None else other.rows,
            padded=self.padded or other.padded,
            needs_proof=self.needs_proof or other.needs_proof,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All there is to compare, and all that cannot be."""

    labels: tuple[LabelPlan, ...]
    """In golden order."""
    levels: dict[LabelKey, Level]
    silent_ranks: tuple[int, ...]
    """Ranks that recorded no label."""
    unreadable: int
    """Shards and lines of journals that could not be read: how many labels were in them is not known."""
    notes: tuple[str, ...]
    independent: bool = False
    """True if no label was computed from another, so that each is judged by itself."""

    @property
    def keys(self) -> list[LabelKey]:
        """The labels, in golden order."""
        return [label.key for label in self.labels]

    @property
    def pairs(self) -> list[Pair]:
        """Those of all labels; of one (label, rank) they follow each other."""
        return [pair for label in self.labels for pair in label.pairs]

    @property
    def gaps(self) -> list[Gap]:
        """Those of all labels."""
        return [gap for label in self.labels for gap in label.gaps]

    @property
    def questions(self) -> list[Question]:
        """Those of all labels."""
        return [question for label in self.labels for question in label.questions]

    @property
    def comparable(self) -> int:
        """Number of (label, rank) that can be compared."""
        return sum(len({pair.rank for pair in label.pairs}) for label in self.labels)

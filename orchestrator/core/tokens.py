"""Tokens that rows of logits choose: the evidence on them, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import NamedTuple

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.margins import Share
from aclcmp.orchestrator.core.regions import LabelKey

MOST_OF_WHOLE = 3.0
"""Most that the shares of a margin may add up to without their signs, of their sum."""


class TokenState(str, Enum):
    """What the logits of a row say of the token that actual chooses."""

    SAME = "same"
    """Golden chooses it too."""
    TIE = "tie"
    """Golden chooses another, and noise explains it."""
    WRONG = "wrong"
    """Golden chooses another, and noise does not explain it."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of one token, which a row of logits chooses: the row is that of the position before it."""

    request: str
    position: int
    """Of the token in its request, from 0."""
    in_prompt: bool
    """Whether the prompt gives it, whatever the logits say."""
    before: int
    """The token before it, -1 where none was told."""
    golden: int
    """Golden's best token, -1 where none of its logits is a number."""
    actual: int
    moved: int
    """That of the two whose logit differs more."""
    taken: int
    """The token with which actual went on, -1 where none was told."""
    margin: float
    """How much golden prefers its best token to actual's: the difference of its two logits."""
    shift: float
    """How far actual moved that difference: from the reference's where that is known, else from golden's."""
    off: float
    """How far all of actual's logits of the row are from golden's: the standard deviation of the difference."""
    gap: float
    """Difference of golden's two best logits."""
    kl: float
    """KL(golden ‖ actual) of the distributions that softmax gives, in nats."""
    overlap: float
    """Share of golden's five best tokens that are among actual's."""
    size: float
    """Root mean square of golden's logits."""
    noise: float
    """Standard deviation of the noise in golden's logits, nan where nobody measured it."""
    shares: tuple[Share, ...] = ()
    """How far each part of the model moved the margin, to first order, from the reference's where that is known, else
    from golden's; () where nobody measured it."""

    @property
    def largest_share(self) -> Share | None:
        """The part of the model that moved the margin most; None where that is not known.

        Where single shares are far larger than what they add up to, the first order tells nothing.
        """
        whole = sum(share.moved for share in self.shares)
        sizes = sum(abs(share.moved) for share in self.shares)
        if not (isfinite(whole) and 0.0 < sizes <= MOST_OF_WHOLE * whole):
            return None
        return max(self.shares, key=lambda share: share.moved)


class Holder(NamedTuple):
    """A rank and the ids of the vocabulary that it holds: begin <= id < end."""

    rank: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TokenEvidence:
    """The tokens of one label on the ranks that hold its vocabulary together, by request and position."""

    key: LabelKey
    holders: tuple[Holder, ...]
    tokens: tuple[Token, ...]
    source: FloorSource | None
    """Who measured the noise."""

    @property
    def ranks(self) -> list[int]:
        """The ranks, in their order."""
        return sorted({holder.rank for holder in self.holders})


@dataclass(frozen=True, slots=True, eq=False)
class TokenVerdicts:
    """The verdict on each token of the evidence."""

    evidence: TokenEvidence
    states: Sequence[TokenState]
    noise: Sequence[float]
    """How far noise alone moves the difference of two logits, by token."""
    source: str
    """Where that comes from, in words."""

    def __iter__(self) -> Iterator[tuple[Token, TokenState, float]]:
        """Yield each token with its state and the noise there."""
        return zip(self.evidence.tokens, self.states, self.noise, strict=True)

    def count(self, state: TokenState) -> int:
        """Return how many tokens have a state."""
        return sum(each is state for each in self.states)


def texts_of(tokens: Iterable[TokenVerdicts], texts: Mapping[int, str]) -> dict[int, str]:
    """Return those of the texts that belong to the tokens."""
    evidence = [token for verdicts in tokens for token in verdicts.evidence.tokens]
    ids = {each for token in evidence for each in (token.before, token.golden, token.actual, token.taken)}
    return {token: texts[token] for token in sorted(ids & texts.keys())}

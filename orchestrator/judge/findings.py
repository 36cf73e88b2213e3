"""What else is known of labels that do not match: where the error sits, and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass

from aclcmp.orchestrator.core.regions import LabelKey


@dataclass(frozen=True, slots=True)
class Pattern:
    """Where the error of one label sits, by shares of its energy (the sum of d^2), and in words."""

    key: LabelKey
    by_rank: dict[int, float]
    """Share of the error energy of all ranks that each wrong rank holds."""
    ranks: str
    """Which ranks are wrong, and what that suggests; e.g. "rank 3 alone: its weights, its slice or its device"."""
    rows: str
    """Which rows (tokens) hold the error, e.g. "row 64 holds 98 % of it"; "" where it is spread."""
    channels: str
    """Which places along the last axis hold it; "" where it is spread."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What the error of a label looks like on some ranks, where that explains at least 90 % of its energy."""

    key: LabelKey
    ranks: tuple[int, ...]
    kind: str
    """The kind of `compare.look.Fit`, or "missing reduction"."""
    words: str
    explained: float
    """Share of the error energy that it explains, from 0.9 to 1, on the rank where it explains least."""

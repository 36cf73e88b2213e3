"""One finding of an examination, and how they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from aclcmp.orchestrator.doctor.facts import NodeFacts


class Level(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """A run may work, or is slower or less safe than it could be."""
    BAD = "bad"
    """A run fails, or cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, one line each."""

    level: Level
    what: str
    where: str = ""
    """Host in words; "": the cluster as a whole."""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """One host of an examination: what Ray says of it, and what it says itself."""

    where: str
    ip: str
    """Its address in Ray; "": it is not in a Ray."""
    facts: NodeFacts
    resources: Mapping[str, float] | None = None
    """What Ray offers there; None: no Ray was asked."""
    skew: tuple[float, float] = (0.0, 0.0)
    """Its clock is ahead of the asker's by at least and at most so many seconds."""


Findings = Iterator[Finding]


def ok(what: str, where: str = "") -> Finding:
    """Something is as it should be."""
    return Finding(Level.OK, what, where)


def warn(what: str, where: str, fix: str) -> Finding:
    """Something may go wrong."""
    return Finding(Level.WARN, what, where, fix)


def bad(what: str, where: str, fix: str) -> Finding:
    """Something goes wrong."""
    return Finding(Level.BAD, what, where, fix)

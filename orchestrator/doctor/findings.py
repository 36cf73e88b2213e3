"""The findings of an examination, and the report of one host from which they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from aclcmp.orchestrator.doctor.facts import NodeFacts


class Severity(str, Enum):
    """Severity of a finding."""

    OK = "ok"
    WARN = "warn"
    """A run may work, or is slower or less safe than it could be."""
    BAD = "bad"
    """A run fails, or cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; each text is one line."""

    level: Severity
    what: str
    where: str = ""
    """Host in words; "": the cluster as a whole."""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class HostReport:
    """One host of an examination: what Ray knows about it, and the facts that it gathered itself."""

    where: str
    ip: str
    """Its address in Ray; "" if it is in no Ray."""
    facts: NodeFacts
    resources: Mapping[str, float] | None = None
    """The resources that Ray offers there; None if no Ray was asked."""
    skew: tuple[float, float] = (0.0, 0.0)
    """Seconds, at least and at most, by which its clock is ahead of that of the asking host."""


Findings = Iterator[Finding]


def ok(what: str, where: str = "") -> Finding:
    """Return the finding that something is right."""
    return Finding(Severity.OK, what, where)


def warn(what: str, where: str, fix: str) -> Finding:
    """Return the finding that something may go wrong."""
    return Finding(Severity.WARN, what, where, fix)


def bad(what: str, where: str, fix: str) -> Finding:
    """Return the finding that something is wrong."""
    return Finding(Severity.BAD, what, where, fix)

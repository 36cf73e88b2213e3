"""Descriptions of a wrong label's error: sentences for the terminal, objects for report.json."""

from __future__ import annotations

from math import isfinite
from typing import Any

from aclcmp.orchestrator.core.diagnosis import Hint, Pattern
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import of_ranks

_MOST_HINTS = 2


def what_it_looks_like(report: Report) -> list[str]:
    """Return where the error of the first divergence sits and what it looks like, one line each; [] if not known."""
    first = report.judgement.first_divergence
    if first is None:
        return []
    lines = ["  Where: " + _as_sentence(where(pattern)) for pattern in report.patterns if pattern.key == first.key]
    hints = sorted((hint for hint in report.hints if hint.key == first.key), key=lambda hint: -len(hint.ranks))
    lines += [f"  Looks like: {what(hint, first.ranks)}" for hint in hints[:_MOST_HINTS]]
    if len(hints) > _MOST_HINTS:
        lines[-1] += f" (and {len(hints) - _MOST_HINTS} more)"
    return lines


def _as_sentence(words: str) -> str:
    return words if words.endswith("?") else f"{words}."


def where(pattern: Pattern) -> str:
    """Return a pattern in words: "rank 3 alone of 8: its weights, its slice or its device; row 64 holds 98 % of it"."""
    return "; ".join(words for words in (pattern.ranks, pattern.rows, pattern.channels) if words)


def what(hint: Hint, ranks: tuple[int, ...] = ()) -> str:
    """Return a hint in words, with its ranks unless they are `ranks`."""
    on = "" if hint.ranks == ranks else f", on {of_ranks(hint.ranks)}"
    return f"{hint.words} (explains {_percent(hint.explained)} of the error{on})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.985 else f"{100 * share:.1f} %" if share < 0.9995 else "all"


def pattern_object(pattern: Pattern) -> dict[str, Any]:
    """Return a pattern as report.json has it."""
    shares = {str(rank): share if isfinite(share) else None for rank, share in sorted(pattern.by_rank.items())}
    words = {"ranks": pattern.ranks, "rows": pattern.rows, "channels": pattern.channels}
    return key_object(pattern.key) | {"by_rank": shares} | words


def hint_object(hint: Hint) -> dict[str, Any]:
    """Return a hint as report.json has it."""
    found = {"ranks": list(hint.ranks), "kind": hint.kind, "words": hint.words, "explained": hint.explained}
    return key_object(hint.key) | found


def key_object(key: LabelKey) -> dict[str, Any]:
    """Return what names a label as report.json has it."""
    return {"task": key.task, "label": key.label, "occurrence": key.occurrence}

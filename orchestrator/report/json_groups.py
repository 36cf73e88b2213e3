"""Ranks of a label that agree, told once in report.json: where a run has more verdicts than a reader has room for.

A verdict takes some 2.4 KB of report.json, a million of them more than most programs can read. report.csv and report.h5
hold each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from math import isnan
from typing import Any

from aclcmp.orchestrator.core.compact import table
from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.text import fold_ranks
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, RankVerdict, Status

MOST_ROWS = 65_536
"""Up to so many (label, rank) each has its own place."""
MOST_SINGLE = 8_192
"""Beyond, so many of those that do not match: own divergences first, then in golden order."""

_METRICS = tuple(field.name for field in fields(Metrics))
Single = set[tuple[int, int]]
"""Numbers of labels, and ranks."""


def single_ones(judgement: Judgement) -> Single | None:
    """Return which (label, rank) are told one by one; None where all are."""
    if sum(len(label.ranks) for label in judgement.labels) <= MOST_ROWS:
        return None
    graded: tuple[list[tuple[int, int]], list[tuple[int, int]]] = [], []
    for number, label in enumerate(judgement.labels):
        if label.status is not Status.MATCH:
            for verdict in label.ranks:
                if verdict.status is not Status.MATCH:
                    graded[verdict.origin is not Origin.OWN].append((number, verdict.rank))
    return set([*graded[0], *graded[1]][:MOST_SINGLE])


def grouped(verdicts: Iterable[RankVerdict]) -> dict[str, list[RankVerdict]]:
    """Return verdicts that agree in all that is not a number together, by their ranks: "0-511,513-1023"."""
    found: dict[object, list[RankVerdict]] = {}
    for verdict in verdicts:
        alike = (verdict.status, verdict.origin, verdict.bitwise, verdict.gap, verdict.excused, verdict.ignored)
        found.setdefault(alike, []).append(verdict)
    return {fold_ranks(v.rank for v in group).replace(" ", ""): group for group in found.values()}


def group_object(verdicts: Sequence[RankVerdict]) -> dict[str, Any]:
    """Return what report.json tells of a group: what is common, between what its figures lie, its worst rank."""
    first = verdicts[0]
    worst = max(verdicts, key=lambda verdict: -1.0 if verdict.margin is None else verdict.margin)
    compared = [verdict.metrics for verdict in verdicts if verdict.metrics is not None]
    figures = table(compared, Metrics)
    margins = [verdict.margin for verdict in verdicts if verdict.margin is not None]
    layouts = {verdict.layout for verdict in verdicts}
    return {
        "count": len(verdicts),
        "status": first.status.value,
        "origin": first.origin.value if first.origin else None,
        "worst_rank": worst.rank,
        "reason": worst.reason,
        "bitwise": first.bitwise,
        "layout": layouts.pop() if len(layouts) == 1 else None,
        "metrics": {name: reach(figures[name].tolist()) for name in _METRICS} if compared else None,
        "margin": reach(margins) if margins else None,
        "gap": first.gap.value if first.gap else None,
        "excused": first.excused,
        "ignored": first.ignored,
    }


def reach(values: Iterable[float]) -> list[float] | None:
    """Return the smallest and the largest of values; None where none is defined."""
    known = [value for value in values if not isnan(value)]
    return [min(known), max(known)] if known else None

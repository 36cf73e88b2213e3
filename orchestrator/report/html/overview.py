"""Data of the heat map and the chart of errors except the figures: columns, rows, labels, limits."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.text import fold_ranks
from aclcmp.orchestrator.core.verdicts import FirstDivergence, LabelVerdict
from aclcmp.orchestrator.report.html.grid import FACES, GridRow, rows_of
from aclcmp.orchestrator.report.html.packed import LOWEST, PER_DECADE, printable, printable_in, round_figure
from aclcmp.orchestrator.terminal.cells import shorten

_LONGEST_ROW_NAME = 60


def overview(report: Report, columns: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return the page's first part as JSON can hold it; `columns` are the ranks of each column."""
    labels = report.judgement.labels
    number = {label.key: i for i, label in enumerate(labels)}
    hosts = {record.rank: printable(record.host) for record in report.run.ranks} if report.run else {}
    limits = [_limits(label) for label in labels]
    return {
        "codes": {"lowest": LOWEST, "per_decade": PER_DECADE},
        "faces": [
            {"mark": face.status.mark, "colour": face.classes, "words": face.words, "point": face.status.point}
            for face in FACES
        ],
        "columns": [
            {"name": fold_ranks(ranks), "ranks": ranks, "hosts": sorted({hosts[r] for r in ranks if r in hosts})}
            for ranks in columns
        ],
        "rows": [_row(row) for row in rows_of(labels)],
        "labels": {
            "name": [_name(label.key.label) for label in labels],
            "task": [label.key.task for label in labels],
            "occurrence": [label.key.occurrence for label in labels],
            "level": [printable(_level_words(label.level)) for label in labels],
            "warn": [round_figure(warn) for warn, _, _ in limits],
            "fail": [round_figure(fail) for _, fail, _ in limits],
            "source": printable_in([source for _, _, source in limits]),
            "basis": [_basis(label) for label in labels],
            "root": [None if label.root is None else number.get(label.root) for label in labels],
        },
        "first": _place(report.judgement.first_divergence, labels, columns),
    }


def _row(row: GridRow) -> dict[str, Any]:
    return {"task": row.task, "name": _name(shorten(row.name, _LONGEST_ROW_NAME)), "labels": row.labels}


def _name(name: str) -> str:
    return printable(name) or "(no name)"


def _level_words(level: Level) -> str:
    inside = f"inside {level.parent.label}" if level.parent else ""
    return ", ".join(filter(None, (level.granularity, "low level" if level.low else "", inside)))


def _limits(label: LabelVerdict) -> tuple[float | None, float | None, str]:
    """Return the strictest limits of any rank, and where they come from; None where nothing is beyond them."""
    found = [verdict.limits for verdict in label.ranks if verdict.limits is not None]
    strictest = min(found, key=lambda limits: limits.fail, default=None)
    if strictest is None:
        return None, None, ""
    return (
        (strictest.warn, strictest.fail, strictest.source)
        if isfinite(strictest.fail)
        else (None, None, strictest.source)
    )


def _basis(label: LabelVerdict) -> str:
    """Say what errors are where whole tensors were not compared; "" where they were."""
    found = {verdict.stats.basis for verdict in label.ranks if verdict.stats is not None and not verdict.bitwise}
    if Basis.NORMS in found:
        return "compared by norms: errors are at least these"
    estimated = found & {Basis.FINGERPRINT, Basis.ROW_FINGERPRINT}
    return "compared by fingerprints: errors are estimates" if estimated else ""


def _place(
    first: FirstDivergence | None, labels: Sequence[LabelVerdict], columns: Sequence[tuple[int, ...]]
) -> dict[str, int] | None:
    """Return where the first divergence is: the label's number, and the column of the first of its ranks.

    None where there is none, or it is a weight.
    """
    if first is None or first.of_weight:
        return None
    number = next(i for i, label in enumerate(labels) if label.key == first.key)
    return {"label": number, "column": next(i for i, ranks in enumerate(columns) if first.ranks[0] in ranks)}

"""Data of the heat map and the chart of errors except the figures: columns, rows, labels, limits."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.text import fold_ranks
from aclcmp.orchestrator.core.verdicts import FirstDivergence, LabelVerdict
from aclcmp.orchestrator.report.flat import shape_text
from aclcmp.orchestrator.report.html.grid import FACES, GridRow, has_own_errors, rows_of
from aclcmp.orchestrator.report.html.packed import LOWEST, PER_DECADE, printable, printable_in, round_figure
from aclcmp.orchestrator.terminal.cells import shorten

_LONGEST_ROW_NAME = 60
_MOST_TOKENS = 16_384


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
            **_sides(labels),
        },
        "own": has_own_errors(labels),
        "tokens": _tokens(report),
        "first": _place(report.judgement.first_divergence, labels, columns),
    }


def _row(row: GridRow) -> dict[str, Any]:
    return {"task": row.task, "name": _name(shorten(row.name, _LONGEST_ROW_NAME)), "labels": row.labels}


def _name(name: str) -> str:
    return printable(name) or "(no name)"


def _sides(labels: Sequence[LabelVerdict]) -> dict[str, Any]:
    """Return dtype, shape, device and call site of both sides of each label, as numbers of those that there are."""
    kinds: dict[tuple[str, ...], int] = {}
    found: dict[str, list[int | None]] = {"golden": [], "actual": []}
    for label in labels:
        for name, numbers in found.items():
            side = next((each for v in label.ranks if (each := getattr(v, name)) is not None), None)
            numbers.append(None if side is None else kinds.setdefault(side_words(side), len(kinds)))
    return found | {"kinds": printable_in(list(kinds))}


def side_words(side: SideFacts) -> tuple[str, ...]:
    """Return what the page says first of a side: dtype, shape, device, call site."""
    return side.dtype, shape_text(side.shape), side.device, side.call_site


def _tokens(report: Report) -> list[dict[str, Any]]:
    """Return the tokens of each task whose rows have them: names and texts, in the order of rows."""
    found: dict[int, dict[str, Any]] = {}
    room = _MOST_TOKENS
    for verdicts in report.judgement.tokens:
        key, tokens = verdicts.evidence.key, verdicts.evidence.tokens
        if key.task in found or len(tokens) > room or any(token.before < 0 for token in tokens):
            continue
        room -= len(tokens)
        texts = [report.token_texts.get(token.before, f"\u27e8{token.before}\u27e9") for token in tokens]
        names = [
            f"{f'request {token.request}, ' if token.request else ''}position {token.position - 1}" for token in tokens
        ]
        found[key.task] = {"task": key.task, "texts": printable_in(texts), "names": printable_in(names)}
    return list(found.values())


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

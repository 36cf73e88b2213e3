"""The heat map's grid: which ranks share a column, which labels share a row, and the figures of (label, column)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict, Status, StatusGroup
from aclcmp.orchestrator.report.html.packed import log_codes

_MOST_COLUMNS = 128
_MOST_CELLS = 1_300_000
"""Cells of (label, column) in the page: at 7 bytes each they take 3 to 10 MB of it."""
_MOST_ROWS = 160
"""Rows of one task."""


@dataclass(frozen=True, slots=True)
class GridRow:
    """A row of the heat map: labels of one task, as numbers in the judgement's order."""

    task: int
    name: str
    labels: tuple[int, ...]


def columns_of(report: Report) -> list[tuple[int, ...]]:
    """Return the ranks of each column: one, or so many consecutive ones that the page stays within its bounds.

    Ranks that ran are there even where they labelled nothing.
    """
    labels = report.judgement.labels
    ranks = {verdict.rank for label in labels for verdict in label.ranks}
    ranks |= {record.rank for record in report.run.ranks} if report.run else set()
    ordered = sorted(ranks)
    room = max(1, min(_MOST_COLUMNS, _MOST_CELLS // max(len(labels), 1)))
    size = 1
    while len(ordered) > room * size:
        size *= 2
    return [tuple(ordered[i : i + size]) for i in range(0, len(ordered), size)]


def rows_of(labels: Sequence[LabelVerdict]) -> list[GridRow]:
    """Return one row per layer and one per label outside of layers, by task in golden order.

    A task of more than 160 rows has runs of consecutive rows as one.
    """
    members: dict[int, dict[str, list[int]]] = {}
    names = {label.key: _row_name(label) for label in labels}
    for number, label in enumerate(labels):
        parent = label.level.parent
        name = names[parent] if parent in names and parent is not None else names[label.key]
        members.setdefault(label.key.task, {}).setdefault(name, []).append(number)
    return [
        row
        for task, by_name in members.items()
        for row in _join_rows([GridRow(task, name, tuple(numbers)) for name, numbers in by_name.items()])
    ]


def _row_name(label: LabelVerdict) -> str:
    """The id up to the layer's number ("model.layers.12"), "layer 12" where it has none, or the whole id."""
    layer = label.level.layer
    if not layer:
        return label.key.label
    found = re.match(rf".*?[./\[\]]{re.escape(layer)}(?=[./\[\]]|$)\]?", label.key.label, re.DOTALL)
    return found[0] if found else f"layer {layer}"


def _join_rows(rows: list[GridRow]) -> list[GridRow]:
    size = -(-len(rows) // _MOST_ROWS)
    if size <= 1:
        return rows
    runs = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [
        GridRow(run[0].task, f"{run[0].name} … {run[-1].name}", tuple(n for row in run for n in row.labels))
        for run in runs
    ]


def has_own_errors(labels: Sequence[LabelVerdict]) -> bool:
    """Tell whether own errors were measured (`--local`)."""
    return any(verdict.own is not None for label in labels for verdict in label.ranks)


def figures(labels: Sequence[LabelVerdict], columns: Sequence[tuple[int, ...]]) -> bytes:
    """Return the figures of all cells, label by label: faces (uint8), then rel_l2, worst_row, margin (uint16 codes).

    Own errors come last, where they were measured. Little-endian. In a column of several ranks the gravest verdict
    counts, and of these that with the largest margin.
    """
    column = {rank: i for i, ranks in enumerate(columns) for rank in ranks}
    shape = len(labels), len(columns)
    faces = np.zeros(shape, np.uint8)
    values = np.full((3 + has_own_errors(labels), *shape), nan)
    for i, label in enumerate(labels):
        gravest: dict[int, tuple[int, float, RankVerdict]] = {}
        for verdict in label.ranks:
            at = column[verdict.rank]
            found = face_number(verdict), verdict.margin if verdict.margin is not None else -1.0, verdict
            if at not in gravest or found[:2] > gravest[at][:2]:
                gravest[at] = found
        for at, (face, margin, verdict) in gravest.items():
            faces[i, at] = face
            metrics = verdict.metrics
            figures = (nan, nan) if metrics is None else (metrics.rel_l2, metrics.worst_row)
            values[:3, i, at] = (*figures, margin if margin >= 0 else nan)
            if verdict.own is not None:
                values[3, i, at] = verdict.own.rel_l2
    return faces.tobytes() + log_codes(values).astype("<u2").tobytes()


@dataclass(frozen=True, slots=True)
class Face:
    """Look of a cell. The number of a face is its place in `FACES`: of several verdicts the largest one counts."""

    status: Status
    origin: Origin | None = None
    bitwise: bool = False
    excused: bool = False

    @property
    def colour(self) -> str:
        """The name of its colour: faces of one name look alike."""
        if self.excused:
            return "excused"
        inherited = self.status.group is StatusGroup.WRONG and self.origin is Origin.INHERITED
        return f"{self.status.value} inherited" if inherited else self.status.value

    @property
    def classes(self) -> str:
        """Its classes in grid.css: the colour of its status, then the words of its own."""
        return self.colour if self.excused else f"{self.status.colour} {self.colour}"

    @property
    def words(self) -> str:
        """Its status, and what is known beyond: "diverged, inherited"."""
        more = [self.origin.value] if self.origin else ["bitwise"] if self.bitwise else []
        return ", ".join([self.status.value, *more, *(["excused"] if self.excused else [])])


def _gravity(face: Face) -> tuple[bool, bool, int, int, bool]:
    origin = (Origin.INHERITED, None, Origin.OWN).index(face.origin)
    harmless = face.status is Status.MATCH
    return not harmless, not face.excused, face.status.severity, origin, not face.bitwise


FACES = tuple(
    sorted(
        (
            Face(status, origin, bitwise, excused)
            for status in Status
            for origin in (None, *Origin)
            for bitwise in (False, True)
            for excused in (False, True)
        ),
        key=_gravity,
    )
)
"""All faces, the least grave first."""


_NUMBER = {(f.status, f.origin, f.bitwise, f.excused): number for number, f in enumerate(FACES, 1)}


def face_number(verdict: RankVerdict) -> int:
    """Return the number of a verdict's face, from 1 on; 0 stands for no verdict."""
    return _NUMBER[verdict.status, verdict.origin, verdict.bitwise, bool(verdict.excused)]

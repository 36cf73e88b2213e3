"""The report as a piece of HTML below a notebook's cell: no script, no style sheet, colours for light and dark."""

from __future__ import annotations

from dataclasses import dataclass

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import figure
from aclcmp.orchestrator.core.verdicts import Origin
from aclcmp.orchestrator.report.html.page import template
from aclcmp.orchestrator.report.html.summary import summary_of
from aclcmp.orchestrator.report.text.columns import Shown
from aclcmp.orchestrator.report.text.fold import Row
from aclcmp.orchestrator.report.text.table import TableLine, table_lines
from aclcmp.orchestrator.report.text.terminal import ranks_of
from aclcmp.orchestrator.terminal.cells import shorten

_MOST_RANKS = 32
"""With more the marks of ranks have no columns."""
_LONGEST_NAME = 80
_COLOURS = {"good": "#2e9e6b", "warning": "#c28a00", "wrong": "#e0452f", "gap": "#8a75d1"}
"""By groups of statuses; each is readable on white and on black."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table: a heading, which has a name only, or a row."""

    name: str
    marks: tuple[tuple[str, str], ...] = ()
    """The mark of each rank and its colour."""
    figures: tuple[str, ...] = ()
    status: str = ""
    colour: str = ""


def notebook_html(report: Report) -> str:
    """Return the headline, the table and the sentences. Texts of the user's run are only ever text."""
    ranks, summary = ranks_of(report), summary_of(report)
    lines = [_line(each, len(ranks) <= _MOST_RANKS) for each in table_lines(report.judgement, ranks)]
    group = {"match": "good", "diverged": "wrong", "failed": "wrong"}.get(summary.verdict, "gap")
    return template("notebook.html.jinja").render(
        summary=summary,
        colour=_COLOURS[group],
        ranks=ranks if len(ranks) <= _MOST_RANKS else [],
        lines=lines,
    )


def _line(line: TableLine, with_marks: bool) -> _Line:
    ends = dict.fromkeys(shorten(end, _LONGEST_NAME) for end in line.ends)
    name, row = " … ".join(ends) + line.count, line.row
    if row is None:
        return _Line(name)
    marks = tuple(("", "") if mark is None else (mark.mark, _colour(mark, row.origin)) for mark in row.marks)
    status = "mixed" if row.is_mixed else " ".join(filter(None, (row.status.value, _origin(row))))
    figures = (figure(row.rel_l2), figure(row.worst_row))
    return _Line(name, marks if with_marks else (), figures, status, _colour(row.status, row.origin))


def _origin(row: Row) -> str:
    return row.origin.value if row.origin else "bitwise" if row.bitwise else ""


def _colour(status: Shown, origin: Origin | None) -> str:
    return _COLOURS["warning" if origin is Origin.INHERITED else status.group.value]

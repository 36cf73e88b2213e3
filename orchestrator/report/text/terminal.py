"""The report in the terminal: the table, then the sentences. Without colour it says the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import shown_path, visible
from aclcmp.orchestrator.core.tokens import TokenState
from aclcmp.orchestrator.report.text.causes import what_it_looks_like
from aclcmp.orchestrator.report.text.gaps import gap_lines, has_compared, interruption_lines
from aclcmp.orchestrator.report.text.price import price_lines
from aclcmp.orchestrator.report.text.sentences import (
    drift_lines,
    excuse_lines,
    failure_lines,
    first_divergence_lines,
    replica_lines,
    success_line,
)
from aclcmp.orchestrator.report.text.table import table
from aclcmp.orchestrator.report.text.tokens import token_lines
from aclcmp.orchestrator.report.text.weights import is_wrong, weight_lines

_LINES = 24
"""A report shall be read on a terminal without scrolling, so the table is folded until all has its place."""
_TOKENS = {TokenState.SAME: "", TokenState.TIE: "yellow", TokenState.WRONG: "bold red"}
"""Styles of the lines on tokens."""
_AROUND_TABLE = 5
"""Its header, its legend, a blank line before and behind it, and where the files are."""


def print_report(report: Report, console: Console, folder: Path | None = None, *, full: bool | None = None) -> None:
    """Print the table and the sentences; `folder` is that of the run.

    Where it is to be `full`, by default in a pipe, the table is as long as it takes: only labels that are alike share a
    row.

    Names and log lines come from the user's run: they are never read as markup, and control characters are escaped.
    """
    plain = not console.encoding.startswith("utf")

    def say(line: str, style: str = "") -> None:
        # A pipe gets one sentence per line, for grep; a terminal breaks lines between words.
        console.print(Text(visible(line, plain), style), soft_wrap=not console.is_terminal)

    sentences = list(_sentences(report, f"{shown_path(folder)}/" if folder is not None else ""))
    for line in interruption_lines(report):
        say(line, "bold red")
    weights = weight_lines(report)
    for number, line in enumerate(weights):
        say(line, "bold red" if is_wrong(report) and not number else "" if is_wrong(report) else _style(weights))
    good = success_line(report)
    if good is not None:
        say(good, "green")
    elif has_compared(report):
        texts = [visible(line, plain) for line in (*weights, *(line for line, _ in sentences))]
        lines = sum(-(-cell_len(text) // console.width) for text in texts)
        room = None if full or (full is None and not console.is_terminal) else _LINES - lines - _AROUND_TABLE
        for text in table(report.judgement, ranks_of(report), console.width, plain, room):
            console.print(text, soft_wrap=True)
        console.print()
    for line, style in sentences:
        say(line, style)


def print_files(files: Sequence[Path], console: Console) -> None:
    """Print where the files of a report are, if there are any."""
    if files:
        first, *others = files
        line = "Report: " + "  ".join([shown_path(first), *(path.suffix for path in others)])
        plain = not console.encoding.startswith("utf")
        console.print(Text(visible(line, plain)), soft_wrap=True)  # unbroken, to be copied


def _sentences(report: Report, folder: str) -> Iterator[tuple[str, str]]:
    """Yield the sentences below the table, each with its style."""
    head, *more = first_divergence_lines(report) or [""]
    if head:
        yield head, "bold red"
    yield from ((line, "") for line in (*more[:1], *what_it_looks_like(report), *more[1:]))
    yield from ((line, "red") for line in replica_lines(report))
    yield from ((line, "dim") for line in excuse_lines(report))
    yield from ((line, "yellow") for line in drift_lines(report))
    yield from ((line, "" if line.startswith("  ") else "bold red") for line in failure_lines(report.run, folder))
    yield from ((line, "magenta") for line in gap_lines(report, folder))
    yield from ((line, _TOKENS[state]) for line, state in token_lines(report))
    yield from ((line, "") for line in price_lines(report))
    yield from ((f"Note: {note}", "dim") for note in report.notes)


def _style(weights: Sequence[str]) -> str:
    """Return the style of lines on weights of which none is wrong: only one line says that all are right."""
    return "green" if len(weights) == 1 else "yellow"


def ranks_of(report: Report) -> list[int]:
    """Return the ranks that have labels or were started, ascending."""
    labelled = {verdict.rank for label in report.judgement.labels for verdict in label.ranks}
    started = {record.rank for record in report.run.ranks} if report.run else set()
    return sorted(labelled | started)

"""The answer of a comparison in the user's process: its verdict, first divergence, tables and pages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import StringIO
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.run.directory import RunDir

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first label in golden order that is wrong by itself, or before all labels a wrong weight."""

    label: str
    task: int
    occurrence: int
    ranks: tuple[int, ...]
    origin: str
    """"own" or "inherited"."""
    reason: str
    call_site: str
    """File and line of the label."""


@dataclass(frozen=True, slots=True)
class ComparedLabel:
    """One label, with the figures of its worst rank: nan where nothing was compared."""

    label: str
    task: int
    occurrence: int
    status: str
    """A status of docs/report.md, such as "match" or "diverged"."""
    origin: str
    """"own" or "inherited" of a label that is wrong, else ""."""
    rel_l2: float
    worst_row: float
    reason: str


class Comparison:
    """The answer of a comparison. True if everything was compared and matches; as text the table of the terminal."""

    __slots__ = ("_report", "_run")

    def __init__(self, report: Report, run: RunDir | None = None) -> None:
        """`run` is the run directory that was compared, if there is one."""
        self._report, self._run = report, run

    @property
    def verdict(self) -> str:
        """The verdict: "match", "diverged", "failed" or "incomplete"."""
        return self._report.judgement.verdict

    @property
    def exit_code(self) -> int:
        """The exit code that the command would have: 0 for a match, 1 diverged, 3 failed, 4 incomplete."""
        return int(self._report.judgement.exit_code)

    def __bool__(self) -> bool:
        return self.exit_code == 0

    @property
    def first_divergence(self) -> Divergence | None:
        """The label where it begins to diverge; None where nothing does."""
        first = self._report.judgement.first_divergence
        if first is None:
            return None
        key = first.key
        return Divergence(
            key.label, key.task, key.occurrence, first.ranks, first.origin.value, first.why, first.call_site
        )

    @property
    def labels(self) -> tuple[ComparedLabel, ...]:
        """All labels in golden order."""
        return tuple(map(_label_of, self._report.judgement.labels))

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row for each (label, rank), with the columns of the table in report.h5. Needs pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas needs pandas, which is not installed: pip install pandas") from None
        from aclcmp.orchestrator.report.flat import COLUMNS, blocks

        empty = pandas.DataFrame({column.name: pandas.Series(dtype=column.kind) for column in COLUMNS})
        tables = [pandas.DataFrame(block.columns(COLUMNS)) for block in blocks(self._report.judgement)]
        return pandas.concat(tables, ignore_index=True) if tables else empty

    def explain(self, label: str, task: int | None = None, rank: int | None = None) -> str:
        """Return everything known about a label, by its id or a glob. Raises UsageError where there is none."""
        from aclcmp.orchestrator.report.text.explain import choose_labels, explain

        found = choose_labels(self._report, label, task)
        return "\n".join(line for each in found for line in explain(self._report, each, rank))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write report.json, .csv, .h5, .xml and the page report.html into a new folder; return it.

        It may also be the run directory that was compared. Raises UsageError where something else is in it, and
        AclcmpError where a file cannot be written.
        """
        from aclcmp.labeling.errors import AclcmpError
        from aclcmp.orchestrator.report.files import replace_file, write_reports
        from aclcmp.orchestrator.report.html.page import write_html

        path = Path(folder)
        is_own = self._run is not None and path.absolute() == self._run.root
        run = RunDir.at(path) if is_own else RunDir.create(path, with_ranks=False)
        written = write_reports(self._report, run)
        if written.problems:
            raise AclcmpError("; ".join(written.problems))
        with replace_file(run.report_html) as part:
            write_html(self._report, part)
        return run.root

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        from aclcmp.orchestrator.report.text.terminal import print_report
        from aclcmp.orchestrator.terminal.console import text_console

        text = StringIO()
        print_report(self._report, text_console(text), full=False)
        return text.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        from aclcmp.orchestrator.report.html.notebook import notebook_html

        return notebook_html(self._report)


def _label_of(label: LabelVerdict) -> ComparedLabel:
    worst = max(label.ranks, key=lambda each: (each.status is label.status, each.margin or 0.0))
    metrics = worst.metrics
    return ComparedLabel(
        label=label.key.label,
        task=label.key.task,
        occurrence=label.key.occurrence,
        status=label.status.value,
        origin=worst.origin.value if worst.origin else "",
        rel_l2=nan if metrics is None else metrics.rel_l2,
        worst_row=nan if metrics is None else metrics.worst_row,
        reason=worst.reason,
    )

"""The runs that lie beside each other, a line for each."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aclcmp.orchestrator.core.run_record import RunRecord, has_ended, has_failure
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.run.run_list import StoredRun, size_of

_STYLES = {"match": "green", "diverged": "bold red", "failed": "bold red", "incomplete": "magenta"}
_MIB = 1 << 20


def print_runs(runs: Sequence[StoredRun], console: Console) -> None:
    """Print a table of the runs: when they ended, ranks, verdict, first divergence, size."""
    plain = not console.encoding.startswith("utf")
    table = Table(box=None, show_edge=False, pad_edge=False, header_style="bold")
    for heading in ("run", "ended", "ranks", "verdict", "first divergence"):
        is_name = heading == "run"  # which is typed
        table.add_column(heading, overflow="ellipsis" if is_name else "fold", no_wrap=is_name)
    table.add_column("size", justify="right", no_wrap=True)
    for each in runs:
        head = each.head
        verdict = head.verdict if head else _state(each.record)
        first = head.first_divergence if head else None
        cells = (
            each.run.root.name,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.time)),
            str(len(each.record.ranks)) if each.record else "two runs",
            verdict,
            f"{first.label}, task {first.task}" if first else "",
            megabytes(size_of(each.run.root)),
        )
        style = _STYLES.get(verdict, "")
        table.add_row(*(Text(visible(cell, plain), style if cell is verdict else "") for cell in cells))
    console.print(table)


def _state(record: RunRecord | None) -> str:
    """Return what is known of a run without a report."""
    if record is not None and not has_ended(record):
        return "not ended"
    return "failed" if has_failure(record) else "not compared"


def megabytes(size: int) -> str:
    """Return a number of bytes in MiB."""
    return f"{size / _MIB:,.1f} MiB"

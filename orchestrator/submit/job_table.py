"""The table of jobs: of one cluster, or of those submitted from here, each with what its cluster says of it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rich.table import Table

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.submit.client import JobClient, JobState
from aclcmp.orchestrator.submit.state import read_jobs
from aclcmp.orchestrator.terminal.console import report_console


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job in the table."""

    job_id: str
    status: str
    submitted: float
    seconds: float | None
    where: str


def print_jobs(address: str | None) -> int:
    """Print the table, the newest job first; return 0, or 4 when a cluster could not be asked."""
    console = report_console(sys.stdout)
    rows, trouble = (
        ([_row_of(each, address) for each in JobClient.connect(address).jobs()], [])
        if address
        else _rows_of_known_jobs()
    )
    if not rows:
        console.print(f"No jobs at {address}" if address else "No jobs were submitted from here")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("job", "status", "submitted", "took", "where"):
            table.add_column(name, no_wrap=name != "where", overflow="fold")
        for row in rows:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.submitted)) if row.submitted else ""
            took = "" if row.seconds is None else f"{row.seconds:,.0f} s"
            table.add_row(visible(row.job_id), visible(row.status), when, took, row.where)
        console.print(table)
    for line in trouble:
        sys.stderr.write(f"{line}\n")
    return int(ExitCode.INCOMPLETE if trouble else ExitCode.MATCH)


def _rows_of_known_jobs() -> tuple[list[JobRow], list[str]]:
    """Return a row for each job submitted from here, and what went wrong; each cluster is asked once."""
    rows, trouble = [], []
    states: dict[str, dict[str, JobState] | None] = {}
    for job in reversed(read_jobs()):
        if job.address not in states:
            try:
                states[job.address] = {each.job_id: each for each in JobClient.connect(job.address).jobs()}
            except AclcmpError as error:
                states[job.address] = None
                trouble.append(str(error))
        found = states[job.address]
        state = found.get(job.job_id) if found else None
        if state is not None:
            rows.append(_row_of(state, job.address))
        else:
            rows.append(JobRow(job.job_id, "unknown" if found is None else "gone", job.submitted, None, job.address))
    return rows, trouble


def _row_of(state: JobState, address: str | None) -> JobRow:
    code = "" if state.exit_code is None else f" ({state.exit_code})"
    end = state.ended if state.over else time.time()
    seconds = end - state.started if state.started and end else None
    return JobRow(state.job_id, state.status.lower() + code, state.started, seconds, address or "")

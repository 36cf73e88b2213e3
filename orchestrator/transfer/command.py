"""Fetching as a command, and after a report: what a run has on other hosts comes into its directory here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.orchestrator.cluster.cluster import LOCAL_RAY
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.run.repeats import find_repeats
from aclcmp.orchestrator.terminal.startup import nothing, open_cluster, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from aclcmp.orchestrator.cluster.cluster import Cluster
    from aclcmp.orchestrator.core.run_record import RunRecord

_WORSE = (ExitCode.MATCH, ExitCode.INCOMPLETE, ExitCode.FAILED)


def fetch_again(folder: Path, address: str | None, what: Fetch) -> ExitCode:
    """Bring files of a run from the hosts of its ranks into its directory here; return the exit code.

    `address` is that of the cluster, by default the one that the run joined. Raises UsageError when it joined none.
    """
    run, record = open_run(folder)
    console, screen = terminal(False)
    if record.cluster == LOCAL_RAY:
        console.print(f"Nothing needs fetching: {run.root} was made on one host", soft_wrap=True, markup=False)
        return ExitCode.MATCH
    with open_cluster(address or record.cluster, screen, nothing) as (cluster, _):
        return _fetched(run, record, cluster, what, console)


def also_fetched(
    code: ExitCode, run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console
) -> ExitCode:
    """Fetch what was asked for after the report; what is not here then is told unless the report says worse."""
    if what is Fetch.REPORT or len(cluster.nodes) == 1:
        return code
    fetched = _fetched(run, record, cluster, what, console)
    return code if code is not ExitCode.MATCH or fetched is ExitCode.MATCH else ExitCode.INCOMPLETE


def _fetched(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console) -> ExitCode:
    """Fetch the files of a run, and of those within it that measured its noise; return the worst exit code."""
    from aclcmp.orchestrator.transfer.fetch import bring

    code = bring(run, record, cluster, what, console)
    for other, of_other in find_repeats(run, None).values():
        if code is not ExitCode.FAILED:
            code = max(code, bring(other, of_other, cluster, what, console), key=_WORSE.index)
    return code

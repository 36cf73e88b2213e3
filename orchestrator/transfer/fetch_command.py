"""Fetch a run's files from its other hosts into its directory here, as a command and after a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.orchestrator.cluster.cluster import LOCAL_RAY
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import ExitCode, worst_code
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.run.repeats import find_repeats
from aclcmp.orchestrator.terminal.startup import open_cluster, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from aclcmp.orchestrator.cluster.cluster import Cluster
    from aclcmp.orchestrator.core.run_record import RunRecord


def fetch_run(folder: Path, address: str | None, what: Fetch) -> ExitCode:
    """Fetch files of a run from the hosts of its ranks into its directory here; return the exit code.

    `address` is the cluster's, by default that of the cluster that the run joined. Raises UsageError when it joined
    none.
    """
    run, record = open_run(folder)
    console, screen = terminal(False)
    if record.cluster == LOCAL_RAY:
        console.print(f"Nothing needs fetching: {run.root} was made on one host", soft_wrap=True, markup=False)
        return ExitCode.MATCH
    with open_cluster(address or record.cluster, screen) as cluster:
        return _fetch_with_repeats(run, record, cluster, what, console)


def fetch_after_report(
    code: ExitCode, run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console
) -> ExitCode:
    """Fetch the wanted files after the report; return INCOMPLETE for MATCH where some could not be fetched."""
    if what is Fetch.REPORT or len(cluster.nodes) == 1:
        return code
    fetched = _fetch_with_repeats(run, record, cluster, what, console)
    return code if code is not ExitCode.MATCH or fetched is ExitCode.MATCH else ExitCode.INCOMPLETE


def _fetch_with_repeats(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console) -> ExitCode:
    """Fetch the files of a run and of its repeats, which measured its noise; return the worst exit code."""
    from aclcmp.orchestrator.transfer.fetch_hosts import fetch_hosts

    code = fetch_hosts(run, record, cluster, what, console)
    for other, of_other in find_repeats(run, None).values():
        if code is not ExitCode.FAILED:
            code = worst_code((code, fetch_hosts(other, of_other, cluster, what, console)))
    return code

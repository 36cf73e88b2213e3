"""Fetch the files of a run from its other hosts, several hosts at once."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.file_locations import NodeView, node_of, where
from aclcmp.orchestrator.cluster.file_visibility import probe_visibility
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.transfer.fetched_ranks import add_fetched_ranks
from aclcmp.orchestrator.transfer.file_selection import FileSelection
from aclcmp.orchestrator.transfer.pull import HostTransfer, HostTransferResult

_HOSTS_AT_ONCE = 8
_TICK = 0.2
_CTRL_C = "Interrupted"


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """A host on which ranks ran, and the files to fetch from it."""

    node_id: str
    """Of its current node in the cluster."""
    name: str
    """For messages."""
    selection: FileSelection


@dataclass(frozen=True, slots=True)
class HostSelection:
    """The hosts to fetch from."""

    remote: tuple[RemoteHost, ...]
    problems: tuple[str, ...]
    """One sentence for each host that cannot be reached."""
    shared: tuple[str, ...]
    """Names of other hosts that see the files of this one."""


def select_hosts(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch) -> HostSelection:
    """Find the hosts of a run to fetch from: neither this one, nor one that shares its files."""
    ranks: dict[tuple[str, str, str], set[int]] = {}
    for rank in record.ranks:
        ranks.setdefault((rank.node_id, rank.ip, rank.host), set()).add(rank.rank)
    nodes = cluster.refresh()
    seen = probe_visibility(run, cluster)
    remote, problems, shared = [], [], []
    for number, (place, own) in enumerate(ranks.items()):
        node = node_of(place, nodes)
        sight = None if node is None else seen.get(node)
        if node is None:
            problems.append(f"{where(place)} has left the cluster")
        elif node == cluster.driver_node_id:
            continue
        elif not isinstance(sight, NodeView):
            problems.append(f"{where(place)} cannot be asked: {sight}")
        elif cluster.driver_node_id in sight.nodes:
            shared.append(where(place))
        elif not sight.there:
            problems.append(f"{where(place)} has no {run.root}: was a run directory moved or removed?")
        else:
            remote.append(RemoteHost(node, where(place), FileSelection(what, frozenset(own), number)))
    return HostSelection(tuple(remote), tuple(problems), tuple(shared))


def fetch_hosts(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console) -> ExitCode:
    """Fetch the files on other hosts into the run directory here, and print the outcome.

    Returns MATCH when all files are here, INCOMPLETE when some are not, FAILED after Ctrl-C; files that are here stay.
    """
    hosts = select_hosts(run, record, cluster, what)
    command = f"aclcmp fetch {run.root} --{what.value}"
    if not hosts.remote and not hosts.problems:
        shared = (
            f": {', '.join(hosts.shared)} see{'s' * (len(hosts.shared) == 1)} the same files" if hosts.shared else ""
        )
        console.print(f"Nothing needs fetching{shared}", soft_wrap=True, markup=False)
        return ExitCode.MATCH
    begun = time.monotonic()
    results, why = _transfer_all(run, hosts.remote, console)
    for host, result in zip(hosts.remote, results, strict=True):
        if result.finished and not result.problems:
            add_fetched_ranks(run, host.selection.ranks)
    _remove_empty_folders(run)
    files, here = (sum(getattr(result, name) for result in results) for name in ("files", "here"))
    nbytes = sum(result.nbytes for result in results)
    rate = decimal(int(nbytes / max(time.monotonic() - begun, 1e-9)))
    count = f"{len(results)} host{'s' * (len(results) != 1)}"
    also = f"; {here:,} were here already" if here else ""
    outcome = f"Fetched {files:,} file{'s' * (files != 1)} from {count} ({decimal(nbytes)}, {rate}/s){also}"
    if here and not files:
        outcome = (
            f"Nothing new: {here:,} file{'s' * (here != 1)} of {count} {'are' if here != 1 else 'is'} here already"
        )
    if results:
        console.print(outcome, soft_wrap=True, markup=False)
    problems = [*hosts.problems, *(problem for result in results for problem in result.problems)]
    for problem in problems:
        console.print(f"Not fetched: {problem}", soft_wrap=True, markup=False)
    if why or problems:
        begin = f"{why}; what" if why else "What"
        console.print(f"{begin} is here is kept, go on with `{command}`", soft_wrap=True, markup=False)
    if why:
        return ExitCode.FAILED if why == _CTRL_C else ExitCode.INCOMPLETE
    return ExitCode.INCOMPLETE if problems else ExitCode.MATCH


def _transfer_all(run: RunDir, hosts: Sequence[RemoteHost], console: Console) -> tuple[list[HostTransferResult], str]:
    """Fetch the files of hosts; also return why it was cut short, "" if it was not."""
    stop = threading.Event()
    with _TransferProgress(console) as progress:
        transfers = [
            HostTransfer(run, host.node_id, host.name, host.selection, stop, progress.expect, progress.advance)
            for host in hosts
        ]
        why = ""
        with ThreadPoolExecutor(_HOSTS_AT_ONCE) as pool:
            left: set[Future[HostTransferResult]] = {pool.submit(transfer.run) for transfer in transfers}
            try:
                while left:
                    done, left = wait(left, timeout=_TICK, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
                    progress.show()
            except KeyboardInterrupt:
                why = _CTRL_C
            except OSError as error:
                why = f"Cannot write {error.filename or run.root}: {error.strerror or error}"
            finally:
                stop.set()
                for each in left:
                    each.cancel()
    return [transfer.result for transfer in transfers], why


def _remove_empty_folders(run: RunDir) -> None:
    """Remove the folder for partial files, as far as nothing is left in it."""
    folders = sorted((path for path in run.fetching.rglob("*") if path.is_dir()), reverse=True)
    for folder in (*folders, run.fetching):
        try:
            folder.rmdir()
        except OSError:
            continue


class _TransferProgress:
    """The progress of a transfer: a bar on a terminal, else a line on stderr for each tenth."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._lock = threading.Lock()
        self._done = self._total = self._tenth = 0
        self._bar = self._bars.add_task("fetch", total=None, amount="")

    def __enter__(self) -> _TransferProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def expect(self, nbytes: int) -> None:
        with self._lock:
            self._total += nbytes

    def advance(self, nbytes: int) -> None:
        with self._lock:
            self._done += nbytes

    def show(self) -> None:
        """Show the progress; call it again and again from one thread."""
        with self._lock:
            done, total = self._done, self._total
        amount = f"{decimal(done)} of {decimal(total)}"
        self._bars.update(self._bar, completed=done, total=total or None, amount=amount)
        tenth = 10 * done // total if total else 0
        if tenth > self._tenth and self._bars.disable:
            sys.stderr.write(f"aclcmp: fetched {amount}\n")
        self._tenth = max(self._tenth, tenth)

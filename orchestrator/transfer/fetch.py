"""From a run, its record and a cluster to the files of its other hosts, here: several hosts at once."""

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
from aclcmp.orchestrator.transfer.fetched import add_fetched
from aclcmp.orchestrator.transfer.pull import Brought, Transfer
from aclcmp.orchestrator.transfer.selection import Wanted

_AT_ONCE = 8
"""Hosts."""
_TICK = 0.2


@dataclass(frozen=True, slots=True)
class FarHost:
    """A host on which ranks ran: its current node, its name in words, and what is wanted of it."""

    node_id: str
    words: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Asked:
    """The hosts whose files are not here, and in words those that cannot be asked."""

    far: tuple[FarHost, ...]
    problems: tuple[str, ...]
    shared: tuple[str, ...]
    """Other hosts that see the files of this one."""


def hosts_of(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch) -> Asked:
    """Find the hosts of a run whose files are to be brought: not this one, nor one that shares its files."""
    ranks: dict[tuple[str, str, str], set[int]] = {}
    for rank in record.ranks:
        ranks.setdefault((rank.node_id, rank.ip, rank.host), set()).add(rank.rank)
    nodes = cluster.refresh()
    seen = probe_visibility(run, cluster)
    far, problems, shared = [], [], []
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
            far.append(FarHost(node, where(place), Wanted(what, frozenset(own), number)))
    return Asked(tuple(far), tuple(problems), tuple(shared))


def bring(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console) -> ExitCode:
    """Bring what lies on other hosts into the run directory here, and say how it went.

    Returns MATCH when all is here, INCOMPLETE when something is not, FAILED after Ctrl-C: what is here is kept then.
    """
    asked = hosts_of(run, record, cluster, what)
    command = f"aclcmp fetch {run.root} --{what.value}"
    if not asked.far and not asked.problems:
        shared = (
            f": {', '.join(asked.shared)} see{'s' * (len(asked.shared) == 1)} the same files" if asked.shared else ""
        )
        console.print(f"Nothing needs fetching{shared}", soft_wrap=True, markup=False)
        return ExitCode.MATCH
    begun = time.monotonic()
    found, why = _brought(run, asked.far, console)
    for host, each in zip(asked.far, found, strict=True):
        if each.over and not each.problems:
            add_fetched(run, host.wanted.ranks)
    _tidy(run)
    files, here = (sum(getattr(each, name) for each in found) for name in ("files", "here"))
    nbytes = sum(each.nbytes for each in found)
    rate = decimal(int(nbytes / max(time.monotonic() - begun, 1e-9)))
    hosts = f"{len(found)} host{'s' * (len(found) != 1)}"
    also = f"; {here:,} were here already" if here else ""
    told = f"Fetched {files:,} file{'s' * (files != 1)} from {hosts} ({decimal(nbytes)}, {rate}/s){also}"
    if here and not files:
        told = f"Nothing new: {here:,} file{'s' * (here != 1)} of {hosts} {'are' if here != 1 else 'is'} here already"
    if found:
        console.print(told, soft_wrap=True, markup=False)
    problems = [*asked.problems, *(problem for each in found for problem in each.problems)]
    for problem in problems:
        console.print(f"Not fetched: {problem}", soft_wrap=True, markup=False)
    if why or problems:
        begin = f"{why}; what" if why else "What"
        console.print(f"{begin} is here is kept, go on with `{command}`", soft_wrap=True, markup=False)
    if why:
        return ExitCode.FAILED if why == _CTRL_C else ExitCode.INCOMPLETE
    return ExitCode.INCOMPLETE if problems else ExitCode.MATCH


_CTRL_C = "Interrupted"


def _brought(run: RunDir, far: Sequence[FarHost], console: Console) -> tuple[list[Brought], str]:
    """Bring the files of hosts; also why it ended before its time, "" if it did not."""
    stop = threading.Event()
    with _Shown(console) as shown:
        transfers = [
            Transfer(run, host.node_id, host.words, host.wanted, stop, shown.expect, shown.advance) for host in far
        ]
        why = ""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            left: set[Future[Brought]] = {pool.submit(each.bring) for each in transfers}
            try:
                while left:
                    done, left = wait(left, timeout=_TICK, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
                    shown.tell()
            except KeyboardInterrupt:
                why = _CTRL_C
            except OSError as error:
                why = f"Cannot write {error.filename or run.root}: {error.strerror or error}"
            finally:
                stop.set()
                for each in left:
                    each.cancel()
    return [each.brought for each in transfers], why


def _tidy(run: RunDir) -> None:
    """Remove the folder for parts of files, if nothing is left in it."""
    folders = sorted((path for path in run.fetching.rglob("*") if path.is_dir()), reverse=True)
    for folder in (*folders, run.fetching):
        try:
            folder.rmdir()
        except OSError:
            continue


class _Shown:
    """How far the transfer is: a bar on a terminal, else a line on stderr for each tenth."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._lock = threading.Lock()
        self._done = self._total = self._tenth = 0
        self._bar = self._bars.add_task("fetch", total=None, told="")

    def __enter__(self) -> _Shown:
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

    def tell(self) -> None:
        """Show how far it is; to be called again and again, in one thread."""
        with self._lock:
            done, total = self._done, self._total
        told = f"{decimal(done)} of {decimal(total)}"
        self._bars.update(self._bar, completed=done, total=total or None, told=told)
        tenth = 10 * done // total if total else 0
        if tenth > self._tenth and self._bars.disable:
            sys.stderr.write(f"aclcmp: fetched {told}\n")
        self._tenth = max(self._tenth, tenth)

"""The commands as the stages in their order; what they share is here, what they do is in the stages.

Stages are imported where they are used: the rest goes on while Ray, which takes seconds, is starting.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from aclcmp.orchestrator.cluster import LOCAL_RAY, Cluster
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.fetching.what import Fetch
from aclcmp.orchestrator.interrupts import check_interrupt, held
from aclcmp.orchestrator.launch.job import Job, StopAt, check
from aclcmp.orchestrator.rundir import RunDir, opened_run

if TYPE_CHECKING:
    from rich.console import Console

    from aclcmp.orchestrator.answer import Planned
    from aclcmp.orchestrator.judge.floors import FloorSource
    from aclcmp.orchestrator.plan.relayout import LayoutRules
    from aclcmp.orchestrator.record import RunRecord
    from aclcmp.orchestrator.report.model import Report
    from aclcmp.orchestrator.screen import Screen
    from aclcmp.orchestrator.terms import Terms

Work = TypeVar("Work")

_SLOW = 2.0
"""Seconds after which it is shown how far something is."""


def run_job(
    job: Job,
    address: str | None,
    output: Path | None,
    terms: Terms,
    *,
    compare: bool,
    clean: bool,
    as_json: bool,
    fetch: Fetch = Fetch.REPORT,
    stop_at: StopAt = StopAt.NEVER,
) -> ExitCode:
    """Launch, and unless told otherwise compare and report; return the command's exit code."""
    check(job)
    RunDir.check_vacant(output)
    console, screen = _terminal(as_json)
    with _cluster(address, screen, _load_kernels if compare else _nothing) as (cluster, _):
        from aclcmp.orchestrator.launch.launcher import check_fit, launch
        from aclcmp.orchestrator.launch.preflight import hosts_for, preflight
        from aclcmp.orchestrator.live.live import Live

        device = check_fit(job, cluster)
        if address is not None:
            preflight(cluster, hosts_for(job, cluster.nodes))
        run = RunDir.create(output)
        _print_head(console, job, device.value, cluster, run)
        with screen:
            live = Live(run.shards, screen, terms if compare else None, stop_at, lambda: cluster.head.lost)
            try:
                record = launch(job, cluster, run, live, live)
            finally:
                live.close()
            if compare:
                cluster.head.when_lost(lambda: _compare_alone(run, cluster.head.words, screen, terms, clean, as_json))
            again = _launched_again(job, record, cluster, run, screen, terms.again) if terms.again else {}
            if not compare:
                screen.close()
                return _also_fetched(_recorded_only(record, run, screen), run, record, cluster, fetch, console)
            from aclcmp.orchestrator.answer import answer, plan_on_cluster
            from aclcmp.orchestrator.compare.crew import Crew

            crew = Crew(cluster.refresh())
            planned = plan_on_cluster(run, record, cluster, crew, screen, again, known=live.known)
            report = answer(run, record, planned, cluster, crew, screen, terms, clean=clean, known=live.known)
            cluster.head.when_lost(None)
        code = _reported(report, run, console, as_json)
        return _also_fetched(code, run, record, cluster, fetch, console)


def _compare_alone(run: RunDir, why: str, screen: Screen, terms: Terms, clean: bool, as_json: bool) -> None:
    """Become `aclcmp compare RUN`: a process that has lost its cluster can use no other, and is soon ended by Ray."""
    screen.close()
    screen.say(f"{why[0].upper()}{why[1:]}: comparing what lies on this host")
    sys.stdout.flush()
    chosen = [*terms.options, *["--clean"] * clean, *["--json"] * as_json]
    os.execv(sys.executable, [sys.executable, "-m", "aclcmp", "compare", str(run.root), *chosen])


def _launched_again(
    job: Job, record: RunRecord, cluster: Cluster, run: RunDir, screen: Screen, source: FloorSource
) -> dict[FloorSource, tuple[RunDir, RunRecord]]:
    """Run the command a second time for its noise floor, its input perturbed if that is asked for."""
    from aclcmp.orchestrator.judge.floors import FloorSource as Source
    from aclcmp.orchestrator.launch.launcher import launch

    if record.failure is not None:
        return {}
    second = RunDir.create(run.again(source.value))
    screen.say(f"Running it again to measure noise ({source.value}): {second.root.name}")
    seed = 1 if source is Source.PERTURBED else None
    found = launch(replace(job, perturb=seed, low_level=False), cluster, second, screen)
    if found.failure is not None:
        screen.say(f"No noise was measured: {found.failure.what}")
        return {}
    return {source: (second, found)}


def compare_again(
    folder: Path, layouts: Path | None, terms: Terms, *, clean: bool, as_json: bool, address: str | None = None
) -> ExitCode:
    """Compare a run again: what of it lies on this host, or with `address` on the hosts of that cluster.

    `layouts` is a file that corrects those told. Returns the exit code.
    """
    run, record = opened_run(folder)
    rules = _layouts(layouts)
    console, screen = _terminal(as_json)

    def planned() -> Planned | None:
        from aclcmp.orchestrator.answer import plan_here

        plan = plan_here(run, record, screen, rules, terms.repeat) if address is None else None
        _load_kernels()
        return plan

    with _cluster(address, screen, planned) as (cluster, plan):
        from aclcmp.orchestrator.answer import answer, plan_on_cluster
        from aclcmp.orchestrator.compare.crew import Crew

        with screen:
            crew = Crew(cluster.refresh())
            if plan is None:
                again = _recorded_again(run, terms.repeat)
                plan = plan_on_cluster(run, record, cluster, crew, screen, again, rules)
            report = answer(run, record, plan, cluster, crew, screen, terms, clean=clean)
        return _reported(report, run, console, as_json)


def _recorded_again(run: RunDir, repeat: Path | None) -> dict[FloorSource, tuple[RunDir, RunRecord]]:
    """Further runs of the same script that noise floors are measured by: those within a run, and one that is given."""
    from aclcmp.orchestrator.judge.floors import FloorSource as Source
    from aclcmp.orchestrator.terms import AGAIN

    folders = {source: run.again(source.value) for source in AGAIN.values()}
    found = {source: opened_run(folder) for source, folder in folders.items() if folder.is_dir()}
    if repeat is not None:
        found[Source.REPEAT] = opened_run(repeat)
    return found


def fetch_again(folder: Path, address: str | None, what: Fetch) -> ExitCode:
    """Bring files of a run from the hosts of its ranks into its directory here; return the exit code.

    `address` is that of the cluster, by default the one that the run joined. Raises UsageError when it joined none.
    """
    run, record = opened_run(folder)
    console, screen = _terminal(False)
    if record.cluster == LOCAL_RAY:
        console.print(f"Nothing needs fetching: {run.root} was made on one host", soft_wrap=True, markup=False)
        return ExitCode.MATCH
    with _cluster(address or record.cluster, screen, _nothing) as (cluster, _):
        return _fetched(run, record, cluster, what, console)


def _also_fetched(
    code: ExitCode, run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console
) -> ExitCode:
    """Fetch what was asked for after the report; what is not here then is told unless the report says worse."""
    if what is Fetch.REPORT or len(cluster.nodes) == 1:
        return code
    fetched = _fetched(run, record, cluster, what, console)
    return code if code is not ExitCode.MATCH or fetched is ExitCode.MATCH else ExitCode.INCOMPLETE


def _fetched(run: RunDir, record: RunRecord, cluster: Cluster, what: Fetch, console: Console) -> ExitCode:
    """Fetch the files of a run, and of those within it that measured its noise; return the worst exit code."""
    from aclcmp.orchestrator.fetching.bring import bring

    code = bring(run, record, cluster, what, console)
    for other, of_other in _recorded_again(run, None).values():
        if code is not ExitCode.FAILED:
            code = max(code, bring(other, of_other, cluster, what, console), key=_WORSE.index)
    return code


_WORSE = [ExitCode.MATCH, ExitCode.INCOMPLETE, ExitCode.FAILED]


def suggest_ids(golden: Path, actual: Path) -> str:
    """Return a file of patterns, with comments, that maps the ids of one run or dump to those of another."""
    from aclcmp.orchestrator.compare.sampling import look_at
    from aclcmp.orchestrator.mapfile import suggestion_text
    from aclcmp.orchestrator.plan.suggest import suggest
    from aclcmp.orchestrator.plan.two import held_by, seen
    from aclcmp.orchestrator.sides import opened_side

    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        indices = {
            side: opened_side(folder, side, Path(scratch)).indices
            for folder, side in ((golden, "pta"), (actual, "acl"))
        }
        tensors = [held_by(found, side) for side, found in indices.items()]
        with _slow_steps("looking at values", sum(map(len, tensors))) as step:
            views = look_at(tensors[0], tensors[1], step)
    sides = [
        [replace(label, views=known.get(label.data_id, ())) for label in seen(found, side)]
        for (side, found), known in zip(indices.items(), views, strict=True)
    ]
    return suggestion_text(suggest(*sides), str(golden), str(actual))


def compare_two(
    golden: Path,
    actual: Path,
    output: Path | None,
    id_map: Path | None,
    layouts: Path | None,
    terms: Terms,
    *,
    as_json: bool,
) -> ExitCode:
    """Compare two runs or dumps on this host; return the command's exit code. The report gets a folder of its own."""
    from aclcmp.orchestrator.mapfile import read_map
    from aclcmp.orchestrator.sides import Side, opened_side

    RunDir.check_vacant(output)
    ids = None if id_map is None else read_map(id_map)
    rules = _layouts(layouts)
    console, screen = _terminal(as_json)
    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        copies = Path(scratch)

        def planned() -> tuple[Side, Side, Planned]:
            from aclcmp.orchestrator.answer import plan_sides

            sides = opened_side(golden, "pta", copies), opened_side(actual, "acl", copies)
            plan = plan_sides(*sides, screen, ids, rules)
            _load_kernels()
            return *sides, plan

        with _cluster(None, screen, planned) as (cluster, (first, second, plan)):
            from aclcmp.orchestrator.answer import answer_two
            from aclcmp.orchestrator.compare.crew import Crew

            folder = RunDir.create(output, with_ranks=False)
            with screen:
                report = answer_two(first, second, folder, plan, cluster, Crew(cluster.nodes), screen, terms)
            return _reported(report, folder, console, as_json)


def _layouts(path: Path | None) -> LayoutRules:
    from aclcmp.orchestrator.layoutfile import read_layouts
    from aclcmp.orchestrator.plan.relayout import LayoutRules

    return LayoutRules() if path is None else read_layouts(path)


@contextmanager
def _cluster(address: str | None, screen: Screen, meanwhile: Callable[[], Work]) -> Iterator[tuple[Cluster, Work]]:
    """Open a cluster, which takes seconds, and do something else meanwhile."""
    check_interrupt()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(Cluster.open, address)
        try:
            with screen.waiting(f"joining Ray at {address}" if address else "starting a local Ray"):
                done = meanwhile()
                cluster = opening.result()
        except BaseException:
            if opening.exception() is None:
                opening.result().close()
            raise
    with cluster:
        yield cluster, done


@contextmanager
def _slow_steps(text: str, total: int) -> Iterator[Callable[[], None]]:
    """Give what is to be called after each step: on a terminal it shows how far it is when that takes its time."""
    from rich.progress import Progress

    from aclcmp.orchestrator.report.terminal import report_console

    console = report_console(sys.stderr)
    bars = Progress(console=console, transient=True, disable=not console.is_terminal)
    bar = bars.add_task(text, total=total)
    begun = time.monotonic()

    def step() -> None:
        bars.advance(bar)
        if time.monotonic() - begun > _SLOW:
            bars.start()

    try:
        yield step
    finally:
        bars.stop()


def _load_kernels() -> None:
    from aclcmp.orchestrator.compare.pair import warm_up

    with held():  # the compiler's callbacks would swallow a Ctrl-C
        warm_up()  # the first time in an installation this compiles: here once, not in every compare actor


def _nothing() -> None:
    pass


def _terminal(as_json: bool) -> tuple[Console, Screen]:
    """The console for people, which leaves stdout alone where that is for JSON, and the screen on it."""
    from aclcmp.orchestrator.report.terminal import report_console
    from aclcmp.orchestrator.screen import Screen

    console = report_console(sys.stderr if as_json else sys.stdout)
    return console, Screen(console)


def _reported(report: Report, run: RunDir, console: Console, as_json: bool) -> ExitCode:
    from aclcmp.orchestrator.report.annotations import annotations
    from aclcmp.orchestrator.report.files import write_reports
    from aclcmp.orchestrator.report.terminal import print_report
    from aclcmp.orchestrator.stored import print_json

    files = write_reports(report, run)
    if as_json:
        print_json(report)
        return report.judgement.exit_code
    console.print()
    print_report(report, console, files)
    for line in annotations(report, os.environ):
        console.print(Text(line), soft_wrap=True)
    return report.judgement.exit_code


def _recorded_only(record: RunRecord, run: RunDir, screen: Screen) -> ExitCode:
    if record.failure is not None:
        screen.say(record.failure.what)
    screen.say(f"Recorded in {run.root}; `aclcmp compare {run.root}` compares it")
    return ExitCode.FAILED if record.failure is not None else ExitCode.MATCH


def _print_head(console: Console, job: Job, device: str, cluster: Cluster, run: RunDir) -> None:
    hosts = job.nodes or 1
    where = f"{job.ranks} rank{'s' * (job.ranks > 1)} on {hosts} host{'s' * (hosts > 1)} ({device})"
    shown = run.root.relative_to(Path.cwd()) if run.root.is_relative_to(Path.cwd()) else run.root
    console.print(f"aclcmp {version('aclcmp')}   {where}   {cluster.address_words}   run {shown}", soft_wrap=True)

"""The commands as the stages in their order; what they share is here, what they do is in the stages.

Stages are imported where they are used: the rest goes on while Ray, which takes seconds, is starting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.text import Text

from aclcmp import __version__
from aclcmp.orchestrator.core.job import Job, RunOptions, parse_injected
from aclcmp.orchestrator.core.text import shown_path
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.interrupts import check_interrupt
from aclcmp.orchestrator.launch.job_check import check_job
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.golden_run import find_run_on_golden_values
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.run.repeats import find_repeats
from aclcmp.orchestrator.terminal.startup import open_cluster, terminal
from aclcmp.orchestrator.transfer.fetch_command import fetch_after_report

if TYPE_CHECKING:
    from rich.console import Console

    from aclcmp.orchestrator.cluster.cluster import Cluster
    from aclcmp.orchestrator.core.floors import FloorSource
    from aclcmp.orchestrator.core.report import Report
    from aclcmp.orchestrator.core.run_record import RunRecord
    from aclcmp.orchestrator.launch.placement import Spread
    from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
    from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun
    from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
    from aclcmp.orchestrator.terminal.screen import Screen


def run_job(options: RunOptions, terms: JudgingOptions) -> ExitCode:
    """Launch, and unless told otherwise compare and report; return the command's exit code."""
    job = _with_golden_values(Job.of(options, Path.cwd()), options)
    check_job(job)
    RunDir.check_vacant(options.output)
    compare, clean, as_json, address = not options.no_compare, options.clean, options.as_json, options.address
    console, screen = terminal(as_json)
    with open_cluster(address, screen, lambda: load_kernels(screen) if compare else None) as cluster:
        from aclcmp.orchestrator.launch.launcher import check_fit, launch
        from aclcmp.orchestrator.launch.preflight import hosts_for, preflight
        from aclcmp.orchestrator.live.watcher import LiveWatcher

        device, how = check_fit(job, cluster)
        if address is not None:
            preflight(cluster, hosts_for(job, cluster.nodes))
        run = RunDir.create(options.output)
        print_head(console, job, device.value, how, cluster.address_words, run)
        with screen:
            on_golden = job.golden is not None
            live = LiveWatcher(
                run.shards,
                screen,
                terms if compare and not on_golden else None,
                options.stop_at,
                lambda: cluster.head.lost,
            )
            try:
                record = launch(job, cluster, run, live, live)
            finally:
                live.close()
            again = _launch_again(job, record, cluster, run, screen, terms.again) if terms.again else {}
            if not compare:
                screen.close()
                return fetch_after_report(
                    _report_recording(record, run, screen), run, record, cluster, options.fetch, console
                )
            _compare_alone_on_head_loss(cluster, run, screen, terms, clean=clean, as_json=as_json)
            from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun

            compared = ComparedRun(run, record, known=live.known)
            if job.golden is not None:
                cluster.begin_close()
                report = _compare_on_golden_values((run, record), screen, terms)
            elif address is None:
                report = _compare_here(compared, cluster, screen, terms, again, clean=clean)
            else:
                report = _compare_on_cluster(compared, cluster, screen, terms, again, _layouts(None), clean=clean)
            cluster.head.on_loss(None)
        code = _show_report(report, run, console, as_json)
        return fetch_after_report(code, run, record, cluster, options.fetch, console)


def _with_golden_values(job: Job, options: RunOptions) -> Job:
    """Return a job with the golden run of `--local` or `--inject`. Raises UsageError where that is none."""
    folder = options.local or options.golden
    if folder is None:
        return job
    from aclcmp.orchestrator.run.golden_run import open_golden_run

    names = () if options.inject is None else parse_injected(options.inject)
    golden = open_golden_run(folder, names)
    return replace(job, golden=golden.root, golden_shards=golden.shards, inject=names)


def _compare_on_golden_values(
    run: tuple[RunDir, RunRecord],
    screen: Screen,
    terms: JudgingOptions,
    layouts: LayoutRules | None = None,
    *,
    into: tuple[RunDir, RunRecord] | None = None,
) -> Report:
    """Compare a run on golden's values; the report goes into its directory, or `into` that of the golden run."""
    from aclcmp.orchestrator.compare.local_comparer import LocalComparer
    from aclcmp.orchestrator.pipeline.answer import answer
    from aclcmp.orchestrator.pipeline.injection import injection_note
    from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_on_golden_values
    from aclcmp.orchestrator.run.golden_run import open_golden_run

    record = run[1]
    golden = open_golden_run(Path(record.golden), record.inject)
    rules = _layouts(None) if layouts is None else layouts
    planned = plan_on_golden_values(golden, run, screen, rules)
    comparer = LocalComparer()
    report = answer(ComparedRun(*(into or run)), planned, comparer, screen, terms)
    if record.inject:
        note = injection_note(golden, record.inject, report.judgement, comparer)
        report = replace(report, notes=(note, *report.notes))
    return report


def _compare_alone_on_head_loss(
    cluster: Cluster,
    run: RunDir,
    screen: Screen,
    terms: JudgingOptions,
    *,
    clean: bool,
    as_json: bool,
    layouts: Path | None = None,
) -> None:
    """From now on, become `aclcmp compare RUN` when the cluster's head is lost.

    A process that has lost its cluster can use no other, and is soon ended by Ray.
    """
    options = [*terms.options, *["--clean"] * clean, *["--json"] * as_json]
    options += [] if layouts is None else ["--layouts", str(layouts)]

    def compare_alone() -> None:
        why = cluster.head.words
        screen.close()
        screen.say(f"{why[0].upper()}{why[1:]}: comparing what lies on this host")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "aclcmp", "compare", str(run.root), *options])

    cluster.head.on_loss(compare_alone)


def _launch_again(
    job: Job, record: RunRecord, cluster: Cluster, run: RunDir, screen: Screen, source: FloorSource
) -> dict[FloorSource, tuple[RunDir, RunRecord]]:
    """Run the command a second time for its noise floor, its input perturbed if that is asked for."""
    from aclcmp.orchestrator.core.floors import FloorSource as Source
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
    folder: Path, layouts: Path | None, terms: JudgingOptions, *, clean: bool, as_json: bool, address: str | None = None
) -> ExitCode:
    """Compare a run again: what of it lies on this host, or with `address` on the hosts of that cluster.

    `layouts` is a file that corrects those told. Returns the exit code.
    """
    run, record = open_run(folder)
    if not run.shards.is_dir():
        raise UsageError(f"{folder} has no shards any more, only its report: aclcmp report {folder}")
    rules, paths = _layouts(layouts), _paths(layouts=layouts)
    console, screen = terminal(as_json)
    on_golden = find_run_on_golden_values(run, record)
    if on_golden is not None:
        if address is not None:
            raise UsageError(f"{on_golden[0].root} was computed from golden's values on this host; leave out --address")
        load_kernels(screen)
        with screen:
            report = _compare_on_golden_values(on_golden, screen, terms, rules, into=(run, record))
        return _show_report(replace(report, paths=paths), run, console, as_json)

    if address is not None:
        with open_cluster(address, screen, lambda: load_kernels(screen)) as cluster:
            from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun

            with screen:
                _compare_alone_on_head_loss(cluster, run, screen, terms, clean=clean, as_json=as_json, layouts=layouts)
                repeats = find_repeats(run, terms.repeat)
                report = _compare_on_cluster(
                    ComparedRun(run, record), cluster, screen, terms, repeats, rules, clean=clean
                )
                cluster.head.on_loss(None)
            return _show_report(replace(report, paths=paths), run, console, as_json)
    with screen.waiting("reading the shards"):
        from aclcmp.orchestrator.compare.local_comparer import LocalComparer
        from aclcmp.orchestrator.pipeline.answer import answer
        from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_local_run

        plan = plan_local_run(run, record, screen, rules, terms.repeat)
        load_kernels(screen)
    check_interrupt()
    with screen:
        report = answer(ComparedRun(run, record), plan, LocalComparer(), screen, terms, clean=clean)
    return _show_report(replace(report, paths=paths), run, console, as_json)


def _compare_here(
    run: ComparedRun,
    cluster: Cluster,
    screen: Screen,
    terms: JudgingOptions,
    repeats: Mapping[FloorSource, tuple[RunDir, RunRecord]],
    *,
    clean: bool,
) -> Report:
    """Compare a run whose ranks ran on this host in this process; its local Ray is stopped meanwhile."""
    from aclcmp.orchestrator.compare.local_comparer import LocalComparer
    from aclcmp.orchestrator.pipeline.answer import answer
    from aclcmp.orchestrator.pipeline.load_and_plan import plan_finished_run

    cluster.begin_close()
    return answer(run, plan_finished_run(run, repeats, screen), LocalComparer(), screen, terms, clean=clean)


def _compare_on_cluster(
    run: ComparedRun,
    cluster: Cluster,
    screen: Screen,
    terms: JudgingOptions,
    repeats: Mapping[FloorSource, tuple[RunDir, RunRecord]],
    layouts: LayoutRules,
    *,
    clean: bool,
) -> Report:
    """Compare a run on the hosts where its shards lie."""
    from aclcmp.orchestrator.compare.actors.actor_comparer import ActorComparer
    from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
    from aclcmp.orchestrator.pipeline.answer import answer
    from aclcmp.orchestrator.pipeline.load_and_plan import Workers, plan_on_cluster

    workers = Workers(cluster, ActorPool(cluster.refresh()), screen)
    plan, places = plan_on_cluster(run, workers, repeats, layouts)
    return answer(run, plan, ActorComparer(workers.pool, places), screen, terms, clean=clean)


def suggest_ids(golden: Path, actual: Path) -> str:
    """Return a file of patterns, with comments, that maps the ids of one run or dump to those of another."""
    from aclcmp.orchestrator.compare.local_comparer import LocalComparer
    from aclcmp.orchestrator.inputs.id_map_suggestion import suggestion_text
    from aclcmp.orchestrator.pipeline.load_and_plan import lost_sentences
    from aclcmp.orchestrator.pipeline.suggest_map import suggest_map
    from aclcmp.orchestrator.run.sources import open_source

    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        sides = [open_source(folder, side, Path(scratch)) for folder, side in ((golden, "pta"), (actual, "acl"))]
        suggestion = suggest_map(sides[0], sides[1], LocalComparer())
    return suggestion_text(suggestion, str(golden), str(actual), lost_sentences(sides[0], sides[1]))


def compare_two(
    golden: Path,
    actual: Path,
    output: Path | None,
    id_map: Path | None,
    layouts: Path | None,
    terms: JudgingOptions,
    *,
    as_json: bool,
) -> ExitCode:
    """Compare two runs or dumps on this host; return the command's exit code. The report gets a folder of its own."""
    from aclcmp.orchestrator.inputs.id_map_file import read_map
    from aclcmp.orchestrator.run.sources import open_source

    RunDir.check_vacant(output)
    ids = None if id_map is None else read_map(id_map)
    rules = _layouts(layouts)
    console, screen = terminal(as_json)
    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        copies = Path(scratch)

        with screen.waiting("reading both sides"):
            from aclcmp.orchestrator.compare.local_comparer import LocalComparer
            from aclcmp.orchestrator.pipeline.answer import answer_two
            from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_sides

            first, second = open_source(golden, "pta", copies), open_source(actual, "acl", copies)
            plan = plan_sides(first, second, screen, ids, rules)
            load_kernels(screen)
        check_interrupt()
        folder = RunDir.create(output, with_ranks=False)
        with screen:
            report = answer_two(first, second, ComparedRun(folder), plan, LocalComparer(), screen, terms)
        report = replace(report, paths=_paths(golden=golden, actual=actual, map=id_map, layouts=layouts))
        return _show_report(report, folder, console, as_json)


def _paths(**files: Path | None) -> dict[str, str]:
    return {name: str(path.absolute()) for name, path in files.items() if path is not None}


def _layouts(path: Path | None) -> LayoutRules:
    from aclcmp.orchestrator.inputs.layout_file import read_layouts
    from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES

    return NO_RULES if path is None else read_layouts(path)


def _show_report(report: Report, run: RunDir, console: Console, as_json: bool) -> ExitCode:
    from aclcmp.orchestrator.pipeline.stored_reports import has_all_of, print_lines, show
    from aclcmp.orchestrator.report.text.annotations import annotations

    if not as_json:
        console.print()
    kept = has_all_of(run, report)
    show(report, None if kept else run, as_json=as_json)
    if kept:
        print_lines(
            [f"The report in {run.root} is kept: the interrupted comparison has nothing more."], as_json=as_json
        )
    for line in annotations(report, os.environ) if not as_json else ():
        console.print(Text(line), soft_wrap=True)
    return report.judgement.exit_code


def _report_recording(record: RunRecord, run: RunDir, screen: Screen) -> ExitCode:
    if record.failure is not None:
        screen.say(record.failure.what)
    screen.say(
        f"Recorded in {run.root}; `aclcmp compare {run.root}` compares its two sides, with a second RUN those of two"
    )
    return ExitCode.FAILED if record.failure is not None else ExitCode.MATCH


def print_head(console: Console, job: Job, device: str, how: Spread, address: str, run: RunDir) -> None:
    """Print what is launched, and where: `address` is that of the cluster, in words."""
    hosts = len(how.ranks)
    on_hosts = "" if how.divisible else f" on {hosts} host{'s' * (hosts > 1)}"  # divisible: Ray will choose them
    where = f"{job.ranks} rank{'s' * (job.ranks > 1)}{on_hosts} ({device})"
    console.print(
        f"aclcmp {__version__}   {where}   {address}   run {shown_path(run.root)}", soft_wrap=not console.is_terminal
    )


def load_kernels(screen: Screen) -> None:
    """Load the kernels, which compiles them first where no compiled ones were installed for this machine."""
    from aclcmp.orchestrator.compare.kernels.load_library import load_library

    load_library(lambda: screen.say("compiling the comparison kernels, once per installation"))

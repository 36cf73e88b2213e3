"""Commands on a report that exists: judge it again, explain a label, compare it with another, write other forms."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.core.evidence import NOT_REACHED, Evidence, LabelEvidence
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RunRecord, has_failure
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.judge.collect_evidence import add_floors
from aclcmp.orchestrator.judge.floor_profile import floors_from, merge_profiles, profile_of
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.report.files import WriteResult, replace_file, write_reports
from aclcmp.orchestrator.report.h5.labels import Grid
from aclcmp.orchestrator.report.h5.profile import read_profile, write_profile
from aclcmp.orchestrator.report.h5.reader import Only, read_h5, read_two
from aclcmp.orchestrator.report.text.diff import changes, diff_lines, worse
from aclcmp.orchestrator.report.text.explain import choose_keys, choose_labels, explain, with_history
from aclcmp.orchestrator.report.text.terminal import print_files, print_report
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from aclcmp.orchestrator.terminal.console import report_console
from aclcmp.orchestrator.terminal.startup import terminal


def read_stored_report(folder: Path, *, with_rows: bool = True, only: Only | None = None) -> tuple[RunDir, Report]:
    """Read the report of a run directory, or of a folder that a comparison of two runs wrote.

    `with_rows` also reads its sums by row; `only` chooses labels, as in `read_h5`. It turns garbage collection off for
    good: a report is a million small objects and no garbage, and looking for some would take a third of the time.

    Raises UsageError when there is none.
    """
    run, record = _open_folder(folder)
    return run, read_h5(run.report_h5, record, with_rows=with_rows, only=only)


def _open_folder(folder: Path) -> tuple[RunDir, RunRecord | None]:
    run = RunDir.at(folder)
    if not run.record.exists() and not run.report_h5.exists():
        raise UsageError(f"{folder} is no run directory: it has neither {run.record.name} nor {run.report_h5.name}")
    record = load_record(run.record) if run.record.exists() else None
    gc.disable()
    return run, record


def has_all_of(run: RunDir, report: Report) -> bool:
    """Tell whether a report was interrupted and the one in the run's folder has all that it compared."""
    if all(verdict.gap_reason != NOT_REACHED for label in report.judgement.labels for verdict in label.ranks):
        return False
    try:
        _, before = read_stored_report(run.root, with_rows=False)
    except AclcmpError:  # there is none, or it cannot be read
        return False
    here, there = (
        {(label.key, v.rank) for label in one.judgement.labels for v in label.ranks if v.stats is not None}
        for one in (report, before)
    )
    return here <= there


def evidence_of_report(report: Report) -> Evidence:
    """Return the evidence of the verdicts of a report.

    Replicas stay as they were judged first: their limits are not in a report.
    """
    judgement = report.judgement
    labels = tuple(LabelEvidence(each.key, each.level, each.ranks) for each in judgement.labels)
    failed = has_failure(report.run) or judgement.exit_code is ExitCode.FAILED
    coverage = judgement.coverage
    tokens = tuple(each.evidence for each in judgement.tokens)
    silent, weights, independent = coverage.silent_ranks, judgement.weights, report.order == "none"
    return Evidence(labels, judgement.replicas, coverage.unreadable, silent, failed, weights, tokens, independent)


def judge_again(folder: Path, options: JudgingOptions, *, save: bool) -> tuple[Report, RunDir]:
    """Judge a report's evidence by another policy; needs no tensors. `save` reads all that writing it anew needs."""
    run, report = read_stored_report(folder, with_rows=save)
    evidence = evidence_of_report(report)
    if options.profile is not None:
        evidence = add_floors(evidence, floors_from(options.profile, evidence))
    judgement = judge_evidence(evidence, options.policy)
    wrong = {label.key for label in judgement.labels if any(verdict.origin for verdict in label.ranks)}
    report = replace(
        report,
        judgement=judgement,
        policy=options.policy.table(),
        patterns=tuple(each for each in report.patterns if each.key in wrong),
        hints=tuple(each for each in report.hints if each.key in wrong),
    )
    return report, run


def save_profile(report: Report, path: Path) -> str:
    """Add a run's errors to a profile file; return a sentence on it. Raises UsageError if the run does not match."""
    if report.judgement.exit_code is not ExitCode.MATCH:
        raise UsageError(
            f"the run is {report.judgement.verdict}; noise is taken from runs that match, see their report"
        )
    before = [read_profile(path)] if path.exists() else []
    profile = merge_profiles([*before, profile_of(report.judgement)])
    write_profile(profile, path)
    return f"Profile: {path}, {len(profile):,} kinds of labels" + (" with those it had before" if before else "")


def write_page(report: Report, run: RunDir) -> Path:
    """Write report.html and return its path. Raises AclcmpError when it cannot be written."""
    from aclcmp.orchestrator.report.html.page import write_html

    with replace_file(run.report_html) as part:
        write_html(report, part)
    return run.report_html


def serve_page(folder: Path, port: int) -> None:
    """Serve the page of a report on this host alone, until Ctrl-C. Raises UsageError when the port cannot be had."""
    from aclcmp.orchestrator.report.html.serve import ServedPage, open_server

    _, report = read_stored_report(folder)
    with open_server(ServedPage(report), port) as server:
        print_lines(
            [f"Page: http://{server.server_address[0]!s}:{server.server_port}/ (on this host alone; Ctrl-C ends)"]
        )
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print_lines(["The page is no longer served."])


def print_explanation(folder: Path, name: str, task: int | None, rank: int | None) -> ExitCode:
    """Print everything known about a label; where nobody has looked at it again, look, if that is possible."""

    def select(grid: Grid) -> list[int]:
        return with_history(grid.keys, grid.layers, choose_keys(grid.keys, name, task))

    _, report = read_stored_report(folder, only=select)
    labels = choose_labels(report, name, task)
    report, problem = _look_on_request(folder, report, [label for label in labels if _needs_look(report, label)])
    for label in labels:
        print_lines(explain(report, label, rank), unbroken=True)  # it has lines to copy
        if problem and _needs_look(report, label):
            print_lines([f"  no second look: {problem}"])
    return ExitCode.MATCH


def _needs_look(report: Report, label: LabelVerdict) -> bool:
    """Tell whether a label does not match and nobody has looked at any of its ranks again."""
    by_values = any(each.stats is not None and each.stats.basis is Basis.VALUES for each in label.differing)
    return by_values and not any((label.key, each.rank) in report.looks for each in label.ranks)


def _look_on_request(folder: Path, report: Report, labels: Sequence[LabelVerdict]) -> tuple[Report, str]:
    """Return a report with looks at labels, or else the report and why there are none."""
    if not labels:
        return report, ""
    # here and not above: other commands on reports compare nothing
    from aclcmp.orchestrator.pipeline.requested_look import look_on_request

    run, whole = read_stored_report(folder)
    _, screen = terminal(as_json=True)
    try:
        with screen.waiting("looking at the tensors again"):
            found, problem = look_on_request(run, whole, [label.key for label in labels], screen)
    except (AclcmpError, OSError) as error:
        return report, str(error)
    return replace(report, looks=found.looks, patterns=found.patterns, hints=found.hints), problem


def print_diff(first: Path, second: Path) -> ExitCode:
    """Print what differs between two reports; the exit code is 1 where the second is worse."""
    runs = [_open_folder(folder) for folder in (first, second)]
    before, after = read_two(*((run.report_h5, record) for run, record in runs))
    found = changes(before.judgement, after.judgement)
    print_lines(diff_lines(before, after, found))
    return ExitCode.DIVERGED if worse(before.judgement, after.judgement, found) else ExitCode.MATCH


def show(report: Report, run: RunDir | None = None, *, as_json: bool, full: bool = False) -> None:
    """Print a report for people, or as JSON for programs; then write its files into `run`, and say which cannot be.

    `full`: with all rows, however many.
    """
    console = report_console(sys.stdout)
    if as_json:
        print_json(report)
    else:
        print_report(report, console, None if run is None else run.root, full=full or None)
    files = WriteResult(()) if run is None else write_reports(report, run)
    if not as_json:
        print_files(files.files, console)
    errors = report_console(sys.stderr)
    for problem in files.problems:
        errors.print(Text(visible(f"aclcmp: {problem}", not errors.encoding.startswith("utf"))), soft_wrap=True)


def print_json(report: Report) -> None:
    """Write report.json to stdout."""
    from aclcmp.orchestrator.report.as_json import json_pieces

    try:
        sys.stdout.writelines(json_pieces(report))
        sys.stdout.flush()
    except BrokenPipeError:
        report_console(sys.stdout).on_broken_pipe()


def print_lines(lines: Iterable[str], *, as_json: bool = False, unbroken: bool = False) -> None:
    """Print lines for people, broken between words on a terminal: on stdout, or on stderr where that is for JSON."""
    console = report_console(sys.stderr if as_json else sys.stdout)
    plain = not console.encoding.startswith("utf")
    for line in lines:
        console.print(Text(visible(line, plain)), soft_wrap=unbroken or not console.is_terminal)

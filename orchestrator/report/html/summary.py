"""Text of the page without a script: the verdict in a sentence, its reasons, what is missing, the run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RankRecord, RankState, RunRecord
from aclcmp.orchestrator.core.text import count, fold_ranks, of_ranks
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.core.weights import HeldRows
from aclcmp.orchestrator.report.html.lead import Lead, coverage_counts, hints_by_label, lead_of
from aclcmp.orchestrator.report.html.text_strip import Strip, text_strips
from aclcmp.orchestrator.report.text.gaps import gap_lines
from aclcmp.orchestrator.report.text.price import price_lines
from aclcmp.orchestrator.report.text.sentences import excuse_lines, failure_lines
from aclcmp.orchestrator.report.text.tokens import token_lines
from aclcmp.orchestrator.report.text.weights import weight_lines
from aclcmp.orchestrator.terminal.cells import shorten

_LONGEST_NAME = 80
_MARKS = {
    "match": "✓",
    "diverged": Status.DIVERGED.mark,
    "failed": Status.FAILED.mark,
    "incomplete": Status.MISSING.mark,
}

Table = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Summary:
    """The page's words. All texts are as they came: whoever shows them escapes them."""

    verdict: str
    mark: str
    lead: Lead
    about: tuple[str, ...]
    """The run in short: when it began, its ranks, how much was compared."""
    command: str
    log: tuple[str, ...]
    """The last lines of the log of the rank that failed."""
    findings: list[tuple[str, list[str]]]
    """Hints and patterns of the first labels."""
    coverage: tuple[tuple[str, int, bool], ...]
    """What became of each (label, rank): words, count, whether it is a gap. Gaps are left out where there are none."""
    complete: bool
    gaps: tuple[str, ...]
    excused: tuple[str, ...]
    """What the policy lets pass."""
    weights: tuple[str, ...]
    """What is known of the weights."""
    held: tuple[tuple[str, str, str], ...]
    """Ranks, their parameter, and what it holds of golden's."""
    strips: tuple[Strip, ...]
    """The text of each request."""
    notes: tuple[str, ...]
    facts: Table
    hosts: tuple[tuple[str, str, str, str], ...]
    """Host, its ranks, their devices, how they ended."""
    versions: Table
    environment: Table
    policy: Table
    first_by_rank: Table
    """The first wrong label of ranks."""


def summary_of(report: Report) -> Summary:
    """Return the words for a report."""
    run, judgement = report.run, report.judgement
    lead = lead_of(report)
    missing = gap_lines(report)
    parts = [*(line for line, _ in token_lines(report)), *price_lines(report)]
    return Summary(
        verdict=judgement.verdict,
        mark=_MARKS.get(judgement.verdict, ""),
        lead=replace(lead, lines=(*lead.lines, *parts)),
        about=_about(report),
        command=shlex.join(run.command) if run else "",
        log=tuple(line.strip().removeprefix("| ") for line in failure_lines(run)[1:]),
        findings=hints_by_label(report),
        coverage=coverage_counts(judgement.coverage),
        complete=judgement.coverage.complete,
        gaps=tuple(line for line in missing if line not in (lead.headline, lead.subtitle)),
        excused=tuple(excuse_lines(report)),
        weights=tuple(line.strip() for line in weight_lines(report)),
        held=tuple((of_ranks(each.ranks), each.parameter, each.words) for each in _held(report)),
        strips=tuple(text_strips(report)),
        notes=report.notes,
        facts=_facts(report),
        hosts=tuple(_host(host, ranks) for host, ranks in _by_host(run).items()),
        versions=sorted(run.versions.items()) if run else [],
        environment=sorted(run.environment.items()) if run else [],
        policy=[
            (name, f"{value:g}" if isinstance(value, float) else str(value)) for name, value in report.policy.items()
        ],
        first_by_rank=_first_by_rank(report),
    )


def _held(report: Report) -> tuple[HeldRows, ...]:
    return () if report.judgement.weights is None else report.judgement.weights.held


def _about(report: Report) -> tuple[str, ...]:
    run, judgement = report.run, report.judgement
    ranks = {verdict.rank for label in judgement.labels for verdict in label.ranks}
    tasks = {label.key.task for label in judgement.labels}
    statuses = Counter(verdict.status for label in judgement.labels for verdict in label.ranks)
    where = f"{run.device}" if run else ""
    counts = [count(len(judgement.labels), "label"), count(max(len(ranks), len(run.ranks) if run else 0), "rank")]
    counts += [count(len(tasks), "task")] if len(tasks) > 1 else []
    found = [f"{statuses[status]:,} {status.value}" for status in Status if statuses[status]]
    return tuple(filter(None, (_started(run) if run else "", where, *counts, " · ".join(found))))


def _started(run: RunRecord) -> str:
    return f"{datetime.fromtimestamp(run.started, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _facts(report: Report) -> Table:
    run = report.run
    if run is None:
        return [("run", report.run_id), ("made by", "no run of aclcmp: folders of tensors were compared")]
    facts = [
        ("run", report.run_id),
        ("command", shlex.join(run.command)),
        ("in folder", run.cwd),
        ("ranks", f"{len(run.ranks):,}, each on {run.device} (visibility {run.visibility})"),
        ("launched by", f"{run.launcher}, {run.cluster}"),
        ("started", _started(run)),
        ("took", _duration(run.finished - run.started)),
        ("kept of tensors", run.capture),
        ("only labels", run.labels),
        ("only tasks", run.tasks),
        *(("low level", line) for line in run.low_level),
    ]
    return [(name, value) for name, value in facts if value]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _by_host(run: RunRecord | None) -> dict[str, list[RankRecord]]:
    found: dict[str, list[RankRecord]] = {}
    for record in run.ranks if run else ():
        found.setdefault(record.host, []).append(record)
    return found


def _host(host: str, records: Sequence[RankRecord]) -> tuple[str, str, str, str]:
    devices = dict.fromkeys(device for record in records for device in record.devices)
    numbers = [int(device) for device in devices if device.isdecimal()]
    shown = fold_ranks(numbers) if len(numbers) == len(devices) else ", ".join(devices)
    ended = Counter(record.state.value for record in records)
    all_well = set(ended) == {RankState.FINISHED.value}
    states = "all finished" if all_well else ", ".join(f"{number} {state}" for state, number in ended.items())
    return host, fold_ranks(record.rank for record in records), shown or "none", states


def _first_by_rank(report: Report) -> Table:
    found: dict[str, list[int]] = {}
    for rank, key in report.judgement.first_by_rank.items():
        found.setdefault(f"{shorten(key.label, _LONGEST_NAME)}, task {key.task}", []).append(rank)
    return [(label, of_ranks(ranks)) for label, ranks in found.items()]

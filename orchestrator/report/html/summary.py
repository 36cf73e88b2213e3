"""Text of the page without a script: the verdict in a sentence, its reasons, what is missing, the run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RankRecord, RankState, RunRecord
from aclcmp.orchestrator.core.text import count, fold_ranks, of_ranks
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.core.weights import HeldRows
from aclcmp.orchestrator.report.html.text_strip import Strip, text_strips
from aclcmp.orchestrator.report.text.causes import where
from aclcmp.orchestrator.report.text.gaps import gap_lines, interruption_lines
from aclcmp.orchestrator.report.text.price import price_lines
from aclcmp.orchestrator.report.text.sentences import (
    drift_lines,
    excuse_lines,
    failure_lines,
    first_divergence_lines,
    replica_lines,
    success_line,
)
from aclcmp.orchestrator.report.text.tokens import token_lines
from aclcmp.orchestrator.report.text.weights import weight_lines
from aclcmp.orchestrator.terminal.cells import shorten

_MOST_FINDINGS = 4
_LONGEST_NAME = 80
_MARKS = {
    "match": Status.MATCH.mark,
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
    headline: str
    """The verdict in one sentence."""
    lines: tuple[str, ...]
    """What else the terminal says, in its order."""
    log: tuple[str, ...]
    """The last lines of the log of the rank that failed."""
    findings: Table
    """Hints and patterns of the first labels: where, and what."""
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
    failed = failure_lines(run)
    # In the verdict's order of weight: exit code 3 comes before 1, and 1 before 4.
    findings = [
        *failed[:1],
        *interruption_lines(report),
        *first_divergence_lines(report),
        *replica_lines(report),
        *drift_lines(report),
    ]
    missing = gap_lines(report)
    good = success_line(report)
    parts = [*(line for line, _ in token_lines(report)), *price_lines(report)]
    sentences = [good] if good else [*findings, *(missing if not findings else ())]
    headline, *lines = sentences or [_count_sentence(report)]
    return Summary(
        verdict=judgement.verdict,
        mark=_MARKS.get(judgement.verdict, ""),
        headline=headline,
        lines=tuple(line.strip() for line in (*lines, *parts) if line not in missing),
        log=tuple(line.strip().removeprefix("| ") for line in failed[1:]),
        findings=_findings(report),
        coverage=_coverage(report),
        complete=judgement.coverage.complete,
        gaps=tuple(line for line in missing if line != headline),
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


def _count_sentence(report: Report) -> str:
    """Return a sentence for a run of which the terminal has none: nothing that counts is wrong."""
    labels = report.judgement.labels
    ranks = {verdict.rank for label in labels for verdict in label.ranks}
    return f"Nothing that counts diverged: {count(len(labels), 'label')} on {count(len(ranks), 'rank')}."


def _findings(report: Report) -> Table:
    """Return hints, then patterns, of the first labels that have any."""
    found: Table = []
    for hint in report.hints:
        name = f"{_name_with_task(hint.key)}, {of_ranks(hint.ranks)}"
        found.append((name, f"{hint.words} (explains {100 * hint.explained:.1f} % of the error)"))
    for pattern in report.patterns:
        found.append((_name_with_task(pattern.key), where(pattern)))
    more = len(found) - _MOST_FINDINGS
    return found[:_MOST_FINDINGS] + ([("", f"and {more:,} more: open a label to read them")] if more > 0 else [])


def _name_with_task(key: LabelKey) -> str:
    turn = f" #{key.occurrence}" if key.occurrence else ""
    return f"{shorten(key.label, _LONGEST_NAME)}{turn}, task {key.task}"


def _coverage(report: Report) -> tuple[tuple[str, int, bool], ...]:
    coverage = report.judgement.coverage
    counts = (
        ("compared", coverage.compared, False),
        ("without golden", coverage.missing_golden, True),
        ("without actual", coverage.missing_actual, True),
        ("do not fit", coverage.mismatch, True),
        ("failed", coverage.failed, True),
        ("in part only", coverage.uncovered, True),
        ("replicas differ", coverage.replicas, True),
        ("unreadable pieces", coverage.unreadable, True),
        ("silent ranks", len(coverage.silent_ranks), True),
        ("ignored", coverage.ignored, True),
    )
    return tuple(one for one in counts if one[1] or not one[2])


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
        ("started", f"{datetime.fromtimestamp(run.started, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"),
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

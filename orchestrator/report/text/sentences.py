"""The sentences below the table: where it begins, what drifts, what the policy lets pass and why a run failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import isnan
from operator import itemgetter

from aclcmp.labeling.globs import glob_regex
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RankRecord, RunRecord
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.text import count, figure, fold_ranks, of_ranks, shown_path
from aclcmp.orchestrator.core.verdicts import WRONG, FirstDivergence, LabelVerdict, Origin, Status
from aclcmp.orchestrator.terminal.cells import shorten

_RULES = ("allow", "ignore", "limit")
"""Kinds of a policy's rules that have a pattern, as its table calls them."""
_MOST_NAMED = 3
_MOST_MEASURED = 24
"""Names of what was measured to be wrong by itself: each is a fault."""
_MOST_LOG_LINES = 10
_LONGEST_NAME = 80
_FAR = " as far as norms tell"


def success_line(report: Report) -> str | None:
    """Return the one sentence for a run in which everything was compared and matches; None for any other."""
    labels = report.judgement.labels
    if report.judgement.verdict != "match" or any(label.status is not Status.MATCH for label in labels):
        return None
    verdicts = [(label, verdict) for label in labels for verdict in label.ranks]
    ranks = {verdict.rank for _, verdict in verdicts}
    what = f"{count(len(labels), 'label')} on {count(len(ranks), 'rank')}"
    if all(verdict.bitwise for _, verdict in verdicts):
        return f"All match, bit for bit: {what}."
    by_norms = _by_norms(labels)
    match = f"All match{_FAR}" if by_norms else "All match"
    errors = [(v.metrics.rel_l2, label.key.label) for label, v in verdicts if v.metrics and not isnan(v.metrics.rel_l2)]
    if not errors:
        return f"{match}: {what}."
    largest, name = max(errors, key=itemgetter(0))
    return f"{match}: {what}, largest relative L2 {'at least ' if by_norms else ''}{figure(largest)} at {name}."


def _by_norms(labels: Sequence[LabelVerdict]) -> bool:
    """Tell whether any of them was compared by norms alone, and was not equal bit by bit."""
    verdicts = (verdict for label in labels for verdict in label.ranks if not verdict.bitwise)
    return any(verdict.stats is not None and verdict.stats.basis is Basis.NORMS for verdict in verdicts)


def drift_lines(report: Report) -> list[str]:
    """Return what is above the noise floor in a run in which nothing diverged."""
    labels = [label for label in report.judgement.labels if label.status is Status.DRIFT]
    if report.judgement.verdict != "match" or not labels:
        return []
    what = "is" if len(labels) == 1 else "are"
    names = list_names(short_name(label) for label in labels)
    return [f"Nothing diverged; {count(len(labels), 'label')} {what} above the noise floor: {names}."]


def first_divergence_lines(report: Report) -> list[str]:
    """Return where it begins and why, and what else is wrong by itself."""
    first = report.judgement.first_divergence
    if first is None:
        return []
    where = _where(report.run, first.ranks)
    measured = any(verdict.own is not None for label in report.judgement.labels for verdict in label.ranks)
    others = list_names(_others(report, first), _MOST_MEASURED if measured else _MOST_NAMED)
    also = [f"Also wrong by itself: {others}."] if others else []
    if first.of_weight:
        line = f"First divergence: weight {first.key.label}, {of_ranks(first.ranks)}{where}, as it was loaded"
        return [line, f"  It {first.why}.", *also]
    lines = [
        f"First divergence: {_name_with_occurrence(report, first.key)}{_depth(report, first)}, task {first.key.task}, "
        f"{of_ranks(first.ranks)}{where}" + (f", labelled at {shown_path(first.call_site)}" if first.call_site else "")
    ]
    lines.append(f"  {first.why}; {_before(report, first)}.")
    if report.price is not None and report.price.rounds_inputs:
        lines.append(f"  It is a bug: more than the price of quantisation ({report.price.scheme}), which was measured.")
    if root := _passed_root(report, first):
        lines.append(f"  It inherits from {root}.")
    return lines + also


def _passed_root(report: Report, first: FirstDivergence) -> str:
    """From what the first divergence inherits: ids that flipped, or what the policy allows or gives wider limits."""
    labels = {label.key: label for label in report.judgement.labels}
    root = labels[first.key].root
    if root is None or root == first.key:
        return ""
    tied = root in labels and any(verdict.ties for verdict in labels[root].ranks)
    return f"{_name_with_occurrence(report, root)}, {'of which ties flipped' if tied else 'which the policy lets pass'}"


def _name_with_occurrence(report: Report, key: LabelKey) -> str:
    """The label's name, with the number of its occurrence where there are several in its task."""
    several = any(
        label.key.occurrence > 0 for label in report.judgement.labels if label.key[:2] == (key.task, key.label)
    )
    return f"{key.label} #{key.occurrence}" if several else key.label


def excuse_lines(report: Report) -> list[str]:
    """Return what the policy lets pass, and why."""
    verdicts = [(label, v) for label in report.judgement.labels for v in label.ranks if v.excused]
    lines = []
    for what, ignored in (("Allowed to differ", False), ("Ignored", True)):
        for reason in dict.fromkeys(v.excused for _, v in verdicts if v.ignored is ignored):
            names = dict.fromkeys(
                short_name(label) for label, v in verdicts if v.excused == reason and v.ignored is ignored
            )
            lines.append(f"{what} by the policy: {list_names(names)}: {reason}.")
    wrong = any(v.status in WRONG for label in report.judgement.labels for v in label.ranks if not v.excused)
    if wrong and report.judgement.first_divergence is None:
        beside = " beside that" if lines else ""
        lines.append(f"What is wrong{beside} is inherited, which this policy lets pass.")
    if lines and report.judgement.verdict == "match":
        lines.append("It passes: nothing else diverged.")
    if lines and all(v.ignored for label in report.judgement.labels for v in label.ranks):
        lines.append("Nothing is left that counts, so the verdict is incomplete.")
    if idle := _idle_patterns(report):
        lines.append(f"No label is called as the policy says: {list_names(idle)}.")
    return lines


def _idle_patterns(report: Report) -> list[str]:
    """Return the patterns of the policy's rules that mean no label of the report: most likely they are misspelt."""
    names = {label.key.label for label in report.judgement.labels}
    rules = (name.partition(".") for name in report.policy)
    patterns = dict.fromkeys(pattern for kind, _, pattern in rules if kind in _RULES)
    return [each for each in patterns if names and not any(map(glob_regex(each).fullmatch, names))]


def _depth(report: Report, first: FirstDivergence) -> str:
    """Say what of the model the label is: "(layer)", or of a low-level one also what it is part of."""
    level = next(label.level for label in report.judgement.labels if label.key == first.key)
    if not level.low:
        return f" ({level.granularity})" if level.granularity else ""
    inside = f" inside {level.parent.label}" if level.parent else f" in layer {level.layer}" if level.layer else ""
    return f" (low-level {level.granularity}{inside})"


def _others(report: Report, first: FirstDivergence) -> list[str]:
    """Return the other labels that are wrong by themselves, each with its ranks, and its tasks where they differ."""
    ranks: dict[str, set[int]] = {}
    tasks: dict[str, set[int]] = {}
    for label in report.judgement.labels:
        own = {verdict.rank for verdict in label.ranks if verdict.origin is Origin.OWN and not verdict.excused}
        if own and label.key != first.key:
            ranks.setdefault(label.key.label, set()).update(own)
            tasks.setdefault(label.key.label, set()).add(label.key.task)

    def when(name: str) -> str:
        plural = "s" if len(tasks[name]) > 1 else ""
        return "" if tasks[name] == {first.key.task} else f"task{plural} {fold_ranks(tasks[name])}, "

    def what(name: str) -> str:
        return shorten(name, _LONGEST_NAME, "...") + (" again" if name == first.key.label else "")

    return [f"{what(name)} ({when(name)}{of_ranks(ranks[name])})" for name in ranks]


def _before(report: Report, first: FirstDivergence) -> str:
    before = []
    for label in report.judgement.labels:
        if label.key == first.key:
            break
        before.append(label)
    if not before:
        return "it is the first label"
    if all(label.status is Status.MATCH for label in before):
        before_it = {
            "names": "what stands before it by its name matches on all ranks",
            "times": "what was written before it matches on all ranks",
        }.get(report.order, "everything before it matches on all ranks")
        return before_it + _FAR * _by_norms(before)
    counts = Counter(label.status for label in before)
    return "before it " + ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])


def _where(run: RunRecord | None, ranks: Sequence[int]) -> str:
    records: list[RankRecord] = [record for record in run.ranks if record.rank in ranks] if run else []
    hosts = sorted({record.host for record in records})
    if not run or not hosts:
        return ""
    if len(hosts) > _MOST_NAMED:
        return f" (on {len(hosts)} hosts)"
    devices = [device for record in records for device in record.devices]
    if len(records) == 1 and devices:
        return f" (host {hosts[0]}, {run.device} {','.join(devices)})"
    return f" (host{'s' if len(hosts) > 1 else ''} {', '.join(hosts)})"


def replica_lines(report: Report) -> list[str]:
    """Return what ranks of one side ought to hold alike, and do not."""
    found = report.judgement.replicas
    if not found:
        return []
    first = found[0]
    each = [(shorten(r.key.label, _LONGEST_NAME, "..."), of_ranks(r.odd or r.unread)) for r in found]
    others = list(dict.fromkeys(f"{name} ({ranks})" for name, ranks in each[1:] if (name, ranks) != each[0]))
    name, ranks = each[0]
    where = f"{name}, task {first.key.task}, {'' if first.own_ranks else 'golden '}{ranks}"
    lines = [f"Replicas differ: {where}: {first.reason}."]
    return lines + ([f"Likewise: {list_names(others)}."] if others else [])


def failure_lines(run: RunRecord | None, folder: str = "") -> list[str]:
    """Return what went wrong first while the ranks ran, with the last lines of that rank's log.

    `folder` begins paths in that of the run.
    """
    if run is None or run.failure is None:
        return []
    found = run.failure
    lines = [f"Run failed: {found.what}"]
    if found.last_lines and found.rank is not None:
        lines += [f"  | {line}" for line in found.last_lines[-_MOST_LOG_LINES:]]
        lines.append(f"  whole log: {folder}logs/rank{found.rank:05d}.log")
    return lines


def short_name(label: LabelVerdict) -> str:
    """Return the name of a label, cut where it is long."""
    return shorten(label.key.label, _LONGEST_NAME, "...")


def list_names(names: Iterable[str], most: int = _MOST_NAMED) -> str:
    """Return the first names, and how many more there are."""
    found = list(names)
    more = len(found) - most
    return ", ".join(found[:most]) + (f" and {more:,} more" if more > 0 else "")

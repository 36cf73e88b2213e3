"""What the page leads with: a headline, what it looks like, a few facts as chips, hints by label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from operator import itemgetter

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, figure, fold_ranks, of_ranks
from aclcmp.orchestrator.core.verdicts import Coverage, LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.report.text.gaps import gap_lines, interruption_lines
from aclcmp.orchestrator.report.text.sentences import (
    drift_lines,
    failure_lines,
    first_divergence_lines,
    replica_lines,
    success_line,
)
from aclcmp.orchestrator.terminal.cells import shorten

_LONGEST_NAME = 80
_MOST_LABELS = 4
_MOST_HINTS = 3


@dataclass(frozen=True, slots=True)
class Chip:
    """One fact beside the headline."""

    text: str
    term: str = ""
    """The word of the glossary that explains it; "" where it needs none."""
    is_copied: bool = False
    """Whether a click copies it."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The top of the page."""

    headline: str
    is_name: bool = False
    """Whether the headline is a label's name."""
    subtitle: str = ""
    chips: tuple[Chip, ...] = ()
    lines: tuple[str, ...] = ()
    """What else the terminal says, in its order."""


def lead_of(report: Report) -> Lead:
    """Return the top of the page: of the verdict's kind, in its order of weight."""
    judgement = report.judgement
    first = judgement.first_divergence
    failed = failure_lines(report.run)
    interrupted, replicas = interruption_lines(report), replica_lines(report)
    if failed:  # exit code 3 comes before 1, and 1 before 4
        return Lead(failed[0], lines=_clean([*interrupted, *first_divergence_lines(report), *replicas]))
    if first is not None:
        _, why, *others = first_divergence_lines(report)
        hint = main_hint(report)
        looks = hint.words if hint else _place_of_error(report, first.key)
        lines = (*interrupted, *([why] if looks else []), *others, *replicas)
        name = f"{first.key.label} #{first.key.occurrence}" if first.key.occurrence else first.key.label
        return Lead(name or "(no name)", True, looks or why.strip(), _chips_of_first(report, hint), _clean(lines))
    sentences = [*interrupted, *replicas, *drift_lines(report)]
    if good := success_line(report):
        what, _, numbers = good.partition(": ")
        return Lead(_of_pass(report, what), subtitle=numbers, chips=_chips_of_pass(report))
    if judgement.verdict == "match":
        sentence, *also = sentences or [_count_sentence(report)]
        what, *how_many = re.split("[;:] ", sentence, maxsplit=1)
        subtitle = "".join(how_many)
        return Lead(_of_pass(report, what), subtitle=subtitle, chips=_chips_of_pass(report), lines=_clean(also))
    gaps = gap_lines(report)
    if judgement.verdict == "incomplete" and judgement.coverage.compared:
        subtitle, *also = [*sentences, *gaps[: not sentences]] or [_count_sentence(report)]
        return Lead("Incomplete", subtitle=subtitle, chips=_chips_of_gaps(judgement.coverage), lines=_clean(also))
    headline, *also = sentences or gaps or [_count_sentence(report)]
    return Lead(headline, lines=_clean([line for line in also if line not in gaps]))


def _clean(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(line.strip() for line in lines)


def _count_sentence(report: Report) -> str:
    """Return a sentence for a run of which the terminal has none: nothing that counts is wrong."""
    labels = report.judgement.labels
    ranks = {verdict.rank for label in labels for verdict in label.ranks}
    return f"Nothing that counts diverged: {count(len(labels), 'label')} on {count(len(ranks), 'rank')}."


def main_hint(report: Report) -> Hint | None:
    """Return the hint on the first divergence that holds on most ranks; None where there is none."""
    first = report.judgement.first_divergence
    hints = [hint for hint in report.hints if first is not None and hint.key == first.key]
    return max(hints, key=lambda hint: len(hint.ranks), default=None)


def _place_of_error(report: Report, key: LabelKey) -> str:
    """Return where a label's error sits; "" if that is not known."""
    return next((words for each in report.patterns if each.key == key for words in (each.rows, each.channels)), "")


def _chips_of_first(report: Report, hint: Hint | None) -> tuple[Chip, ...]:
    first = report.judgement.first_divergence
    assert first is not None
    label = next((label for label in report.judgement.labels if label.key == first.key), None)
    ranks = Chip(of_ranks(first.ranks), "rank")
    chips = [Chip("weight"), ranks] if first.of_weight else [ranks, Chip(f"task {first.key.task}", "task")]
    if label is not None:
        worst = max((v for v in label.ranks if v.rank in first.ranks), key=lambda v: v.margin or 0.0, default=None)
        if worst is not None and (words := margin_words(worst)):
            chips.append(Chip(words, "margin"))
    chips += [Chip(f"explains {100 * hint.explained:.1f} % of the error")] if hint else []
    return (*chips, *([Chip(first.call_site, "call site", is_copied=True)] if first.call_site else []))


def margin_words(verdict: RankVerdict) -> str:
    """Return "error 1.9 = 1,690 × the limit", or "" where nothing was held against a finite limit.

    Where own errors were measured, theirs is the larger share of a limit: "own error 0.05: 5,000 × its limit".
    """
    margin, limits = verdict.margin, verdict.limits
    if margin is None or limits is None or not isfinite(margin) or not 0 < limits.fail < float("inf"):
        return ""
    factor = f"{margin:,.0f}" if margin >= 100 else f"{margin:.2g}"
    if verdict.own is not None:
        return f"own error {plain_figure(verdict.own.rel_l2)}: {factor} × its limit"
    times = f"{factor} × the limit"
    return f"error {plain_figure(margin * limits.fail)} = {times}"


def plain_figure(value: float) -> str:
    """Return a figure with two digits, readable where it is of usual size."""
    return f"{value:.2g}" if 1e-3 <= value < 100 else f"{value:,.0f}" if 100 <= value < 1e5 else figure(value)


def _of_pass(report: Report, what: str) -> str:
    """Return the headline of a run that passes: what it is, and the worst margin."""
    worst = _worst_margin(report)
    return f"{what}: at most {plain_figure(worst[0])} of the limit" if worst is not None and worst[0] else what


def _worst_margin(report: Report) -> tuple[float, LabelVerdict, RankVerdict] | None:
    judged = ((v.margin or 0.0, label, v) for label in report.judgement.labels for v in label.ranks if _counts(v))
    return max(judged, key=itemgetter(0), default=None)


def _chips_of_pass(report: Report) -> tuple[Chip, ...]:
    """Return where the worst margin is, and how much was compared."""
    compared = Chip(f"{report.judgement.coverage.compared:,} compared", "label")
    worst = _worst_margin(report)
    if worst is None or not worst[0]:
        return (compared,)
    _, label, verdict = worst
    name = Chip(shorten(_name(label), _LONGEST_NAME), is_copied=True)
    return (Chip("worst margin", "margin"), name, Chip(of_ranks([verdict.rank]), "rank"), compared)


def _counts(verdict: RankVerdict) -> bool:
    return verdict.margin is not None and not verdict.excused and verdict.status in (Status.MATCH, Status.DRIFT)


def _name(label: LabelVerdict) -> str:
    return f"{label.key.label} #{label.key.occurrence}" if label.key.occurrence else label.key.label


def _chips_of_gaps(coverage: Coverage) -> tuple[Chip, ...]:
    gaps = [Chip(f"{number:,} {words}") for words, number, is_gap in coverage_counts(coverage) if is_gap]
    return (*gaps, Chip(f"{coverage.compared:,} compared", "label"))


def coverage_counts(coverage: Coverage) -> tuple[tuple[str, int, bool], ...]:
    """Say what became of each (label, rank): words, count, whether it is a gap. Gaps without any are left out."""
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


def hints_by_label(report: Report) -> list[tuple[str, list[str]]]:
    """Return hints and patterns under the labels that have any, one entry for the same words in several tasks."""
    found: dict[str, dict[str, list[tuple[LabelKey, tuple[int, ...], float | None]]]] = {}
    told = main_hint(report)
    for hint in report.hints:
        if hint is told:
            continue
        words = found.setdefault(hint.key.label, {})
        words.setdefault(hint.words, []).append((hint.key, hint.ranks, hint.explained))
    for pattern in report.patterns:
        for text in filter(None, (pattern.ranks, pattern.rows, pattern.channels)):
            found.setdefault(pattern.key.label, {}).setdefault(text, []).append((pattern.key, (), None))
    tasks = {label.key.task for label in report.judgement.labels}
    listed = [
        (
            shorten(name, _LONGEST_NAME) or "(no name)",
            [_told(text, told, len(tasks) > 1) for text, told in list(words.items())[:_MOST_HINTS]]
            + ([f"and {len(words) - _MOST_HINTS:,} more"] if len(words) > _MOST_HINTS else []),
        )
        for name, words in list(found.items())[:_MOST_LABELS]
    ]
    more = len(found) - _MOST_LABELS
    return listed + ([(f"{count(more, 'more label')}", ["open them to read theirs"])] if more > 0 else [])


def _told(text: str, told: Sequence[tuple[LabelKey, tuple[int, ...], float | None]], several_tasks: bool) -> str:
    """Return words with the ranks and tasks that they hold for, and how much they explain at least."""
    ranks = {rank for _, of, _ in told for rank in of}
    tasks = {key.task for key, _, _ in told}
    shares = [share for _, _, share in told if share is not None]
    where = [of_ranks(ranks)] if ranks else []
    where += [f"task{'s' if len(tasks) > 1 else ''} {fold_ranks(tasks)}"] if several_tasks else []
    where += [f"explains {100 * min(shares):.1f} % of the error"] if shares else []
    return f"{text} ({', '.join(where)})" if where else text

"""Differences between the verdicts of two runs: labels that were mended, and labels that are newly wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, figure, of_ranks
from aclcmp.orchestrator.core.verdicts import WRONG, Judgement, Origin, RankVerdict, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.terminal.cells import shorten

_MOST_NAMED = 8
_LONGEST_NAME = 60
_GAPS = (Status.MISSING, Status.MISMATCH, Status.FAILED)
_ORDER = ("new", "still", "mended", "no longer compared", "compared now", "gone", "added")
_TITLES = {
    "new": "new: wrong now, and was not",
    "still": "still wrong",
    "mended": "mended: was wrong, and is not",
    "no longer compared": "no longer compared: was, and is not",
    "compared now": "compared now: was not",
    "gone": "gone: not in the second report",
    "added": "added: not in the first report",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One label whose verdict differs between two reports, or is wrong in both, on some ranks."""

    kind: str
    """One of the keys of _TITLES."""
    key: LabelKey
    ranks: tuple[int, ...]
    before: RankVerdict | None
    """On the first of the ranks."""
    after: RankVerdict | None


def changes(before: Judgement, after: Judgement) -> list[Change]:
    """Return what differs, kind by kind, in the order of the second report's labels, then the first's.

    A label that both reports have is neither added nor gone on ranks that only one of them has.
    """
    old, new = ({(each.key, v.rank): v for each in judged.labels for v in each.ranks} for judged in (before, after))
    names, ranks_of = [{key for key, _ in side} for side in (old, new)], [_ranks(before), _ranks(after)]
    common_names, common_ranks = names[0] & names[1], ranks_of[0] & ranks_of[1]
    found: dict[tuple[str, LabelKey], list[int]] = {}
    for key, rank in dict.fromkeys([*new, *old]):
        kind = _kind(old.get((key, rank)), new.get((key, rank)))
        of_other_ranks = kind in ("added", "gone") and key in common_names and rank not in common_ranks
        if kind and not of_other_ranks:
            found.setdefault((kind, key), []).append(rank)
    changed = [
        Change(kind, key, tuple(ranks), old.get((key, ranks[0])), new.get((key, ranks[0])))
        for (kind, key), ranks in found.items()
    ]
    return sorted(changed, key=lambda change: _ORDER.index(change.kind))


def _ranks(judgement: Judgement) -> set[int]:
    return {verdict.rank for label in judgement.labels for verdict in label.ranks}


def _kind(before: RankVerdict | None, after: RankVerdict | None) -> str:
    if before is None:
        return "new" if after is not None and _is_wrong(after) else "added"
    if after is None:
        return "gone"
    if _is_wrong(after):
        return "still" if _is_wrong(before) else "new"
    if after.status in _GAPS:
        return "" if before.status in _GAPS else "no longer compared"
    if before.status in _GAPS:
        return "compared now"
    return "mended" if _is_wrong(before) else ""


def _is_wrong(verdict: RankVerdict) -> bool:
    return verdict.status in WRONG and not verdict.excused


def worse(before: Judgement, after: Judgement, found: Sequence[Change]) -> bool:
    """Return whether a label is newly wrong or no longer compared, a rank is gone, or the whole run fares worse."""
    codes = before.exit_code, after.exit_code
    failed = codes[1] is ExitCode.FAILED and codes[0] is not ExitCode.FAILED
    incomplete = codes == (ExitCode.MATCH, ExitCode.INCOMPLETE)
    fewer = bool(_ranks(before) - _ranks(after))
    by_labels = any(change.kind in ("new", "no longer compared", "gone") for change in found)
    return failed or incomplete or fewer or by_labels or bool(_wrong_weights(after) - _wrong_weights(before))


def _wrong_weights(judgement: Judgement) -> set[tuple[str, int]]:
    """Return (parameter, rank) of all weights that are wrong."""
    found = judgement.weights.wrong if judgement.weights is not None else ()
    return {(name, rank) for each in found for name in (each.parameter, *each.others) for rank in each.ranks}


def _weights(before: Judgement, after: Judgement) -> Iterator[str]:
    """Say which weights are wrong in one report alone."""
    old, new = _wrong_weights(before), _wrong_weights(after)
    for what, found in (("wrong now", new - old), ("wrong no more", old - new)):
        names = sorted({name for name, _ in found})
        if names:
            more = f" and {len(names) - _MOST_NAMED:,} more" * (len(names) > _MOST_NAMED)
            yield f"Weights {what}: {', '.join(names[:_MOST_NAMED])}{more} ({of_ranks(tuple({r for _, r in found}))})"


def diff_lines(before: Report, after: Report, found: Sequence[Change]) -> list[str]:
    """Return the difference in lines for people: one sentence, then the labels of each kind."""
    counts = {kind: sum(change.kind == kind for change in found) for kind in _ORDER}
    was, now = (_wrong_labels(report.judgement) for report in (before, after))
    changed = [f"{counts[kind]:,} {kind}" for kind in _ORDER if counts[kind]]
    lines = [
        f"Wrong labels: {was:,} -> {now:,}" + (f" ({', '.join(changed)})" if changed else ""),
        *_first(before, after),
    ]
    verdicts = before.judgement.verdict, after.judgement.verdict
    if verdicts[0] != verdicts[1]:
        lines.append(f"Verdict: {' -> '.join(verdicts)}")
    lines += _other_ranks(_ranks(before.judgement), _ranks(after.judgement))
    lines += _weights(before.judgement, after.judgement)
    for kind in _ORDER:
        same = [change for change in found if change.kind == kind]
        if same:
            lines.append(f"{_TITLES[kind]} ({count(len(same), 'label')})")
        shown = [change for change in same if not _is_inherited(change)] or same
        lines += [f"  {_words(change)}" for change in shown[:_MOST_NAMED]]
        if len(shown) > _MOST_NAMED:
            lines.append(f"  and {len(shown) - _MOST_NAMED:,} more")
        if len(same) > len(shown):
            more = len(same) - len(shown)
            lines.append(f"  and {count(more, 'label')} that {'inherits' if more == 1 else 'inherit'} from such")
    return lines


def _is_inherited(change: Change) -> bool:
    verdict = {"new": change.after, "still": change.after, "mended": change.before}.get(change.kind)
    return verdict is not None and verdict.origin is Origin.INHERITED


def _wrong_labels(judgement: Judgement) -> int:
    return sum(any(_is_wrong(verdict) for verdict in label.ranks) for label in judgement.labels)


def _first(before: Report, after: Report) -> list[str]:
    was, now = (report.judgement.first_divergence for report in (before, after))
    names = [
        f"{each.key.label}, {'weight' if each.of_weight else f'task {each.key.task}'}, {of_ranks(each.ranks)}"
        if each
        else "none"
        for each in (was, now)
    ]
    return [f"First divergence: {names[0]}" + (" in both" if names[0] == names[1] else f" -> {names[1]}")]


def _other_ranks(before: set[int], after: set[int]) -> list[str]:
    """Say which ranks only one of two reports has: its labels there have no counterpart."""
    if before == after or not before or not after:
        return []
    beside = [
        f"{of_ranks(alone)} {'is' if len(alone) == 1 else 'are'} not in the {which} report"
        for alone, which in ((after - before, "first"), (before - after, "second"))
        if alone
    ]
    return [f"Ranks: {len(before):,} -> {len(after):,}: {', '.join(beside)}"]


def _words(change: Change) -> str:
    name = shorten(change.key.label, _LONGEST_NAME, "...")
    turn = f" #{change.key.occurrence}" if change.key.occurrence else ""
    statuses = [_status(verdict) for verdict in (change.before, change.after)]
    figures = statuses[0] if statuses[0] == statuses[1] else " -> ".join(statuses)
    return f"{name}{turn}, task {change.key.task}, {of_ranks(change.ranks)}: {figures}"


def _status(verdict: RankVerdict | None) -> str:
    if verdict is None:
        return "absent"
    error = f" {figure(verdict.metrics.rel_l2)}" if verdict.metrics else ""
    return f"{verdict.status.value}{error}"

"""Where an error is larger than what came before explains: the same kind of label in earlier layers, and all labels.

Round-off grows slowly with depth, a fault at once. Only labels before count: those after a fault carry its error.
Errors are those of the median row and of the worst row: the whole tensor's is that of the one token whose activations
are massive (docs/design/0009-trained-weights.md).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from statistics import median

from aclcmp.orchestrator.core.levels import Level, kind_in_layers
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import WRONG, RankVerdict, Status, changed
from aclcmp.orchestrator.judge.dtype_limits import round_off_of
from aclcmp.orchestrator.judge.pair_status import median_row_error
from aclcmp.orchestrator.judge.policy import JumpRule

HISTORY = 8
"""Layers that are looked back."""
FEWEST = 3
"""With fewer there is no history."""
SHORT = 6
"""With fewer the first layers are in it, in which errors grow fast."""
_SHORT_TIMES = 1.5
"""How many times larger the worst row must be beside a short history."""
_FIRST_TIMES = 2.0
"""How many times the largest error before it a label's must be where there is no history."""
OUTRANKED = 50.0
"""A label that only jumps is none beside a later one whose error is so many times larger."""
_OF_FEW_ROWS = 4
"""The errors of few rows vary: all factors are larger by this part of the number of rows, at most twice as large."""
_WITNESSES = 8
"""Labels behind a jump that are asked whether they carry it, of kinds with at least so many layers before:"""
_FEWEST_OF_WITNESS = 2
_CARRIED = (2.2, 2.0)
"""By how much the median one of these must exceed what is usual for its kind: median rows, worst rows."""
_NEEDS_NO_WITNESS = (2.5, 4.0)
"""How many times the largest error before it a jump is that counts though nothing carries it: the same."""
_NEAR_THE_END = 2.0
"""... and one behind which there are fewer than three labels to ask."""
_JUST_BEYOND = 1.5
"""A worst row may be so many times its limit where nothing that follows carries it on."""

Labels = Sequence[tuple[LabelKey, list[RankVerdict]]]
_RANK = attrgetter("rank")


@dataclass(frozen=True, slots=True)
class Jump:
    """An error beside what came before: how many times the usual one of its kind, and the largest of all, it is."""

    factor: float
    """nan where no layers before tell what is usual."""
    record: float
    of_rows: bool = False
    """Whether it is the worst row that jumps, not the median one."""
    chance: float = 1.0
    """By how much more it must stand out because it rests on few rows."""

    @property
    def words(self) -> str:
        """Both, for people."""
        largest = f"{self.record:.2g} times the largest so far"
        return (
            largest if math.isnan(self.factor) else f"{self.factor:.2g} times that of the layers before it, {largest}"
        )


def jump(errors: Sequence[float], least: float, factor: float) -> float | None:
    """Return how many times the usual error the last of a kind's errors is; None if that is not more than `factor`.

    Errors below `least` count as that: what is below round-off has no history. The usual error is the median of those
    of up to eight layers before, at least three.
    """
    history = [max(error, least) for error in errors[:-1][-HISTORY:] if math.isfinite(error)]
    error = errors[-1]
    if len(history) < FEWEST or not math.isfinite(error):
        return None
    found = error / median(history)
    return found if found > factor else None


@dataclass(slots=True)
class _RankHistory:
    """What came before on one rank in one task."""

    typical: float = 0.0
    """Largest error of a median row."""
    worst: float = 0.0
    """Largest error of a worst row."""
    inexact: int = 0
    """How many labels had an error."""
    kinds: dict[object, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    """By kind of label: errors of median rows, and of worst rows."""

    def take(self, kind: object, typical: float, worst: float) -> None:
        """Take up a label."""
        for known, error in zip(self.kinds[kind], (typical, worst), strict=True):
            known.append(error)
            del known[: -HISTORY - 1]
        self.inexact += worst > 0.0
        self.typical, self.worst = max(self.typical, typical), max(self.worst, worst)


def raise_jumps(
    labels: Labels, levels: Mapping[LabelKey, Level], rule: JumpRule
) -> list[tuple[LabelKey, list[RankVerdict]]]:
    """Make `diverged` what is below its limit but jumps beside the labels before; labels in golden order.

    Only before anything is wrong in a task, or ids flip in a tie: what follows jumps because of it. What is ignored
    counts not. Each rank has its own history. A jump is none where the labels behind it do not carry it on, or a later
    label of the task is far worse. Nor is a worst row that is just beyond its limit wrong where nothing carries it on.
    """
    if not rule.on:
        return list(labels)
    labels = [(key, list(ranks)) for key, ranks in labels]
    before: dict[tuple[int, int], _RankHistory] = defaultdict(_RankHistory)
    wrong: set[int] = set()
    jumps: list[tuple[int, int, Jump]] = []
    kinds = [_kind(key, levels) for key, _ in labels]
    for place, (key, ranks) in enumerate(labels):
        if key.task not in wrong:
            for at, verdict in enumerate(ranks):
                known = before[key.task, verdict.rank]
                here = known, labels, place, verdict.rank, kinds
                if _is_just_beyond(verdict) and (_carry_on_factor(*here, of_rows=True) or math.inf) <= _CARRIED[True]:
                    words = f"nothing that follows carries it on: {verdict.reason}"
                    ranks[at] = verdict = changed(verdict, status=Status.DRIFT, reason=words)
                found = _jump_beside(known, verdict, kinds[place], rule)
                if found is not None and _is_credible(found, _carry_on_factor(*here, of_rows=found.of_rows)):
                    jumps.append((place, at, found))
                    wrong.add(key.task)
        if any((v.status in WRONG or (v.ties and v.status is Status.DRIFT)) and not v.ignored for v in ranks):
            wrong.add(key.task)
    return _mark_jumps(labels, jumps)


def _kind(key: LabelKey, levels: Mapping[LabelKey, Level]) -> tuple[str, int] | None:
    layer = levels[key].layer
    return (kind_in_layers(key.label, layer), key.occurrence) if layer else None


def _is_credible(found: Jump, carried_on: float | None) -> bool:
    """Whether what follows a jump is out of line too, or the jump so large that it needs no witness.

    An error that nothing carries on is that of a part that is small beside what it is added to: where terms cancel,
    round-off is large relative to what is left of them.
    """
    alone = _NEEDS_NO_WITNESS[found.of_rows] if carried_on is not None else _NEAR_THE_END
    return found.record > found.chance * alone or (
        carried_on is not None and carried_on > found.chance * _CARRIED[found.of_rows]
    )


def _is_just_beyond(verdict: RankVerdict) -> bool:
    """Whether nothing is wrong but a worst row, by little, and by no rule of the policy."""
    stats, metrics, limits = verdict.stats, verdict.metrics, verdict.limits
    if verdict.status is not Status.DIVERGED or stats is None or metrics is None or limits is None:
        return False
    given = limits.instead_of < math.inf or limits.fail == 0.0
    most = limits.fail * limits.rows
    single = median_row_error(stats, metrics) <= limits.fail and metrics.rel_l2 <= most and stats.rows.count > 1
    return single and not given and metrics.worst_row <= _JUST_BEYOND * most


def _carry_on_factor(
    before: _RankHistory, labels: Labels, place: int, rank: int, kinds: Sequence[object], *, of_rows: bool
) -> float | None:
    """How many times the usual error of their kind the next labels have, the median one of them; None of too few."""
    task, factors = labels[place][0].task, list[float]()
    for later in range(place + 1, len(labels)):
        key, ranks = labels[later]
        if key.task != task or len(factors) == _WITNESSES:
            break
        errors = before.kinds.get(kinds[later], ((), ()))[of_rows]
        if len(errors) >= _FEWEST_OF_WITNESS:
            at = bisect_left(ranks, rank, key=_RANK)
            if at < len(ranks) and ranks[at].rank == rank:
                factors += _factor_of(ranks[at], errors, of_rows=of_rows)
    return median(factors) if len(factors) >= FEWEST else None


def _factor_of(verdict: RankVerdict, errors: Sequence[float], *, of_rows: bool) -> list[float]:
    """How many times the usual error of its kind a verdict's is; nothing where it has none."""
    if verdict.status in WRONG:
        return [math.inf]
    metrics, stats, limits = verdict.metrics, verdict.stats, verdict.limits
    if metrics is None or stats is None or limits is None or limits.fail == 0.0:
        return []
    least = (1 + of_rows) * round_off_error(verdict)
    error = metrics.worst_row if of_rows else median_row_error(stats, metrics)
    return [error / max(median(errors[-HISTORY:]), least)]


def _jump_beside(before: _RankHistory, verdict: RankVerdict, kind: object, rule: JumpRule) -> Jump | None:
    """Return how a verdict jumps, if it does; what came before then knows it."""
    metrics, limits, stats = verdict.metrics, verdict.limits, verdict.stats
    if metrics is None or limits is None or stats is None or limits.fail == 0.0 or verdict.ignored:
        return None
    typical, worst = (0.0, 0.0) if is_only_round_off(verdict) else (median_row_error(stats, metrics), metrics.worst_row)
    if not math.isfinite(typical):
        return None
    worst = worst if math.isfinite(worst) else typical
    found = None
    if verdict.status in (Status.MATCH, Status.DRIFT) and not verdict.bitwise:
        found = _find_jump(before, verdict, kind, typical, worst, rule)
    before.take(kind, typical, worst)
    return found


def _find_jump(
    before: _RankHistory, verdict: RankVerdict, kind: object, typical: float, worst: float, rule: JumpRule
) -> Jump | None:
    assert verdict.limits is not None
    least = round_off_error(verdict)
    record, record_of_rows = typical / max(before.typical, least), worst / max(before.worst, 2 * least)
    if kind is None or verdict.stats is None:
        return None
    chance = 1 + _OF_FEW_ROWS / max(verdict.stats.rows.count, _OF_FEW_ROWS)
    known, known_rows = before.kinds[kind]
    if len(known) < FEWEST:
        first = before.inexact >= FEWEST and typical > verdict.limits.warn and record > chance * _FIRST_TIMES
        return Jump(math.nan, record, chance=chance) if first else None
    if record > chance * rule.record:  # asked first: seldom so, and asked a million times
        usual = jump([*known, typical], least, chance * rule.factor)
        if usual is not None:
            return Jump(usual, record, chance=chance)
    times = chance if len(known) >= SHORT else chance * _SHORT_TIMES
    if record_of_rows > times * rule.record_of_rows:
        usual = jump([*known_rows, worst], 2 * least, times * rule.factor_of_rows)
        if usual is not None:
            return Jump(usual, record_of_rows, True, chance)
    return None


def _mark_jumps(labels: Labels, jumps: Sequence[tuple[int, int, Jump]]) -> list[tuple[LabelKey, list[RankVerdict]]]:
    """Make what jumps `diverged`, unless it is outranked by what is far worse later on."""
    found = [(key, ranks) for key, ranks in labels]
    later = {place: _ever_worse(labels, place) for place in {place for place, _, _ in jumps}}
    for place, at, jumped in jumps:
        key, ranks = found[place]
        verdict = ranks[at]
        most = OUTRANKED * largest_error(verdict)
        worse = next((key for key, error in later[place] if error >= most), None)
        words = f"its error is {jumped.words}"
        ranks = list(ranks)
        if worse is None:
            ranks[at] = changed(verdict, status=Status.DIVERGED, reason=f"{words}: {verdict.reason}")
        else:
            words += f", but that of {worse.label} more than {OUTRANKED:.0f} times larger"
            ranks[at] = changed(verdict, status=Status.DRIFT, reason=f"{words}: {verdict.reason}")
        found[place] = key, ranks
    return found


def _ever_worse(labels: Labels, place: int) -> list[tuple[LabelKey, float]]:
    """Later labels of the task that are wrong, and their errors: each that is larger than those before it."""
    found: list[tuple[LabelKey, float]] = []
    for key, ranks in labels[place + 1 :]:
        if key.task != labels[place][0].task:
            break
        error = max((largest_error(v) for v in ranks if v.status in WRONG and not v.ignored), default=-1.0)
        if error > (found[-1][1] if found else -1.0):
            found.append((key, error))
    return found


def round_off_error(verdict: RankVerdict) -> float:
    """The error by which two right computations may always differ, of the type as which a verdict's label counts."""
    dtypes = (verdict.limits.dtype,) * 2 if verdict.limits is not None and verdict.limits.dtype else verdict.dtypes
    return round_off_of(*dtypes)


def is_only_round_off(verdict: RankVerdict) -> bool:
    """Whether both sides are equal, or nothing but round-off: relative to that, its error may be anything."""
    return verdict.status is Status.MATCH and verdict.margin == 0.0


def largest_error(verdict: RankVerdict) -> float:
    """The larger error of the median row and of the worst row; infinite where values are not finite or not known."""
    if is_only_round_off(verdict):
        return 0.0
    if verdict.status is Status.NONFINITE or verdict.metrics is None or verdict.stats is None:
        return math.inf
    errors = median_row_error(verdict.stats, verdict.metrics), verdict.metrics.worst_row
    return max((error for error in errors if not math.isnan(error)), default=math.inf)

"""Jumps: errors larger than the labels before explain, those of the same kind in earlier layers and all others.

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
"""Layers before a label that are its history."""
FEWEST = 3
"""Layers without which there is no history."""
SHORT = 6
"""Layers without which a history contains the first ones, in which errors grow fast."""
_SHORT_TIMES = 1.5
"""Factor by which the worst row must be larger beside a short history."""
_FIRST_TIMES = 2.0
"""Factor by which an error must exceed the largest before it where there is no history."""
OUTRANKED = 50.0
"""A jump does not count where the error of a later label is so many times larger."""
_OF_FEW_ROWS = 4
"""The errors of few rows vary: all factors grow by this number divided by that of the rows, at most to the double."""
_WITNESSES = 8
"""Labels after a jump that show whether it goes on."""
_FEWEST_OF_WITNESS = 2
"""Layers before of the kind of such a label."""
_CARRIED = (2.2, 2.0)
"""Factors by which the median one of these must exceed what is usual for its kind: of median rows, of worst rows."""
_NEEDS_NO_WITNESS = (2.5, 4.0)
"""Factors of the largest error before from which a jump counts though it does not go on: the same."""
_NEAR_THE_END = 2.0
"""The same for a jump after which there are fewer than three such labels."""
_JUST_BEYOND = 1.5
"""Factor of its limit up to which a worst row is right where it does not go on in the labels after it."""

Labels = Sequence[tuple[LabelKey, list[RankVerdict]]]
_RANK = attrgetter("rank")


@dataclass(frozen=True, slots=True)
class Jump:
    """An error as a factor of the usual one of its kind, and of the largest before it."""

    factor: float
    """Of the usual error of its kind; nan where there is no history."""
    record: float
    """Of the largest error before it."""
    of_rows: bool = False
    """True if it is the worst row that jumps, not the median one."""
    chance: float = 1.0
    """Factor by which it must stand out more because it rests on few rows."""

    @property
    def words(self) -> str:
        """Both factors, for people."""
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
    """Errors so far on one rank in one task."""

    typical: float = 0.0
    """Largest error of a median row."""
    worst: float = 0.0
    """Largest error of a worst row."""
    inexact: int = 0
    """Number of labels that had an error."""
    kinds: dict[object, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    """By kind of label: errors of median rows, and of worst rows."""

    def take(self, kind: object, typical: float, worst: float) -> None:
        """Add a label."""
        for errors, error in zip(self.kinds[kind], (typical, worst), strict=True):
            errors.append(error)
            del errors[: -HISTORY - 1]
        self.inexact += worst > 0.0
        self.typical, self.worst = max(self.typical, typical), max(self.worst, worst)


def raise_jumps(
    labels: Labels, levels: Mapping[LabelKey, Level], rule: JumpRule
) -> list[tuple[LabelKey, list[RankVerdict]]]:
    """Mark as `diverged` errors below their limit that jump beside the labels before; labels in golden order.

    It ends where something is wrong in a task, or ids flip in a tie: what follows jumps because of that. What is
    ignored does not count. Each rank has its own history. A jump does not count where the labels after it do not
    continue it, or a later label of the task is far worse. A worst row that is just beyond its limit only drifts where
    the labels after it do not continue it.
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
                history = before[key.task, verdict.rank]
                here = history, labels, place, verdict.rank, kinds
                if _is_just_beyond(verdict) and (_carry_on_factor(*here, of_rows=True) or math.inf) <= _CARRIED[True]:
                    words = f"nothing that follows carries it on: {verdict.reason}"
                    ranks[at] = verdict = changed(verdict, status=Status.DRIFT, reason=words)
                found = _jump_beside(history, verdict, kinds[place], rule)
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
    """Tell whether the labels after a jump are out of line too, or the jump is so large that it needs no witness.

    An error that does not go on is that of a part that is small beside what it is added to: where terms cancel,
    round-off is large relative to what is left of them.
    """
    alone = _NEEDS_NO_WITNESS[found.of_rows] if carried_on is not None else _NEAR_THE_END
    return found.record > found.chance * alone or (
        carried_on is not None and carried_on > found.chance * _CARRIED[found.of_rows]
    )


def _is_just_beyond(verdict: RankVerdict) -> bool:
    """Tell whether only a worst row is wrong, by little, and not by a rule of the policy."""
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
    """Return the median factor from the usual errors of their kinds to the next labels' errors; None of too few."""
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
    """Return the factor by which a verdict's error exceeds the usual one of its kind; nothing where it has no error."""
    if verdict.status in WRONG:
        return [math.inf]
    metrics, stats, limits = verdict.metrics, verdict.stats, verdict.limits
    if metrics is None or stats is None or limits is None or limits.fail == 0.0:
        return []
    least = (1 + of_rows) * round_off_error(verdict)
    error = metrics.worst_row if of_rows else median_row_error(stats, metrics)
    return [error / max(median(errors[-HISTORY:]), least)]


def _jump_beside(before: _RankHistory, verdict: RankVerdict, kind: object, rule: JumpRule) -> Jump | None:
    """Return how a verdict jumps, if it does; add its errors to the history."""
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
    median_rows, worst_rows = before.kinds[kind]
    if len(median_rows) < FEWEST:
        first = before.inexact >= FEWEST and typical > verdict.limits.warn and record > chance * _FIRST_TIMES
        return Jump(math.nan, record, chance=chance) if first else None
    if record > chance * rule.record:  # asked first: seldom so, and asked a million times
        usual = jump([*median_rows, typical], least, chance * rule.factor)
        if usual is not None:
            return Jump(usual, record, chance=chance)
    times = chance if len(median_rows) >= SHORT else chance * _SHORT_TIMES
    if record_of_rows > times * rule.record_of_rows:
        usual = jump([*worst_rows, worst], 2 * least, times * rule.factor_of_rows)
        if usual is not None:
            return Jump(usual, record_of_rows, True, chance)
    return None


def _mark_jumps(labels: Labels, jumps: Sequence[tuple[int, int, Jump]]) -> list[tuple[LabelKey, list[RankVerdict]]]:
    """Mark what jumps as `diverged`, or as drift where a later label is far worse."""
    found = [(key, ranks) for key, ranks in labels]
    later = {place: _ever_worse(labels, place) for place in {place for place, _, _ in jumps}}
    for place, at, found_jump in jumps:
        key, ranks = found[place]
        verdict = ranks[at]
        most = OUTRANKED * largest_error(verdict)
        worse = next((key for key, error in later[place] if error >= most), None)
        words = f"its error is {found_jump.words}"
        ranks = list(ranks)
        if worse is None:
            ranks[at] = changed(verdict, status=Status.DIVERGED, reason=f"{words}: {verdict.reason}")
        else:
            words += f", but that of {worse.label} more than {OUTRANKED:.0f} times larger"
            ranks[at] = changed(verdict, status=Status.DRIFT, reason=f"{words}: {verdict.reason}")
        found[place] = key, ranks
    return found


def _ever_worse(labels: Labels, place: int) -> list[tuple[LabelKey, float]]:
    """Return the later wrong labels of the task with their errors, each larger than those before it."""
    found: list[tuple[LabelKey, float]] = []
    for key, ranks in labels[place + 1 :]:
        if key.task != labels[place][0].task:
            break
        error = max((largest_error(v) for v in ranks if v.status in WRONG and not v.ignored), default=-1.0)
        if error > (found[-1][1] if found else -1.0):
            found.append((key, error))
    return found


def round_off_error(verdict: RankVerdict) -> float:
    """Return the error by which two right computations always may differ, in the type as which the label counts."""
    dtypes = (verdict.limits.dtype,) * 2 if verdict.limits is not None and verdict.limits.dtype else verdict.dtypes
    return round_off_of(*dtypes)


def is_only_round_off(verdict: RankVerdict) -> bool:
    """Tell whether both sides are equal, or nothing but round-off: relative to that the error may be anything."""
    return verdict.status is Status.MATCH and verdict.margin == 0.0


def largest_error(verdict: RankVerdict) -> float:
    """Return the larger error of the median row and the worst row; infinite where it is not finite or not known."""
    if is_only_round_off(verdict):
        return 0.0
    if verdict.status is Status.NONFINITE or verdict.metrics is None or verdict.stats is None:
        return math.inf
    errors = median_row_error(verdict.stats, verdict.metrics), verdict.metrics.worst_row
    return max((error for error in errors if not math.isnan(error)), default=math.inf)

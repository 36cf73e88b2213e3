"""Own or inherited: whether a wrong label's inputs were right, or explain its error."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import WRONG, LabelVerdict, Origin, RankVerdict, Status, changed, worst
from aclcmp.orchestrator.judge.growth import is_only_round_off, jump, largest_error, round_off_error
from aclcmp.orchestrator.judge.pair_status import median_row_error
from aclcmp.orchestrator.judge.policy import JumpRule

_ANY_FINITE = 1e100
"""An error that explains any but a non-finite one."""
_WHOLLY_WRONG = 1.0
"""Relative errors above this are no larger ones: nothing of golden is left."""


_CARRIED = 0.5
"""A median row that is off by less than this part of the worst rows' usual error may carry what is spread from them."""
_RECENT_TIMES = 2.0
"""How many times the largest error of all labels since the layer before the median row's must be."""
_ROWS_TIMES = 1.5
"""How much more the worst row must jump, and exceed all before, once something is wrong."""


@dataclass(slots=True)
class _Before:
    """What came before in a task, from its first wrong label on."""

    errors: dict[object, tuple[list[float], list[float]]] = field(default_factory=dict)
    """Of each kind of label on each rank, since the last root: those of median rows, and of worst rows."""
    lately: dict[int, list[float]] = field(default_factory=dict)
    """Of all labels on each rank, since the last root: errors of median rows."""
    places: dict[object, int] = field(default_factory=dict)
    """Of each kind of label on each rank: where in `lately` the last one is."""
    largest: float = -1.0
    """Largest error of what is wrong; negative where nothing is yet."""
    root: LabelKey | None = None
    """The own divergence from which what follows inherits: the last one."""


def assign_origins(labels: Sequence[LabelVerdict], own_factor: float, rule: JumpRule) -> list[LabelVerdict]:
    """Tell own from inherited, in golden order.

    The inputs of a label are those that it names, or else the labels before it in its task. A wrong label is own if
    none of its inputs is wrong, or if the error of its median row is more than `own_factor` times the largest of
    theirs, or jumps beside its kind in the layers since the last own one. Ranks exchange data in collectives, so inputs
    count on all ranks. From ids that flipped in a tie all that follows may differ, so it inherits from them. Exact
    types differ by any amount once their inputs do, so they inherit where an input is wrong. What a rule of the policy
    tolerates explains errors as what is wrong does. Single rows that are wrong behind a tie, and inherit from it,
    drift: those of tokens that took another way; so does what is wrong there and right again in the label after it, as
    rows are that were sorted by what flipped. A label that was not compared, or is ignored, is as wrong as its own
    inputs.
    """
    before: dict[int, _Before] = {}
    known: dict[tuple[int, str], tuple[float, LabelKey | None]] = {}
    found: list[LabelVerdict] = []
    ties: set[LabelKey] = set()
    for label in labels:
        key = label.key
        far = before.setdefault(key.task, _Before())
        error, root = _of_inputs(label, known, far)
        wrong = [verdict for verdict in label.ranks if verdict.status in WRONG]
        counts = [verdict for verdict in label.ranks if not verdict.ignored]
        own = {verdict.rank for verdict in wrong if error < 0 or _exceeds(verdict, own_factor * error)}
        if rule.on and label.level.layer and far.largest > 0:
            own |= _jumps(label, far, rule)
        explains = [_error(verdict) for verdict in counts if verdict.status in WRONG or _is_tolerated(verdict)]
        tied = any(verdict.ties and verdict.status is Status.DRIFT for verdict in counts)
        explains += [_ANY_FINITE] * tied
        if tied:
            ties.add(key)
        if explains:
            roots = tied or any(verdict.rank in own for verdict in counts)
            root = key if roots or error < 0 else root
            known[key.task, key.label] = max(explains), root
            far.largest = max(far.largest, *explains)
            far.root = key if roots or far.root is None else far.root
            if roots:
                far.errors, far.lately, far.places = {}, {}, {}
        else:
            compared = not wrong and any(verdict.metrics is not None for verdict in counts)
            known[key.task, key.label] = (-1.0, None) if compared else (error, root)
        if not wrong:
            found.append(label)
            continue
        ranks = tuple(_with_origin(verdict, own) for verdict in label.ranks)
        found.append(replace(label, ranks=ranks, root=root if not own else None))
    return _behind_ties(found, ties) if ties else found


def _exceeds(verdict: RankVerdict, error: float) -> bool:
    """Whether a wrong label's error is larger than what its inputs explain."""
    return not _is_exact(verdict) and _typical(verdict) > error


def _jumps(label: LabelVerdict, before: _Before, rule: JumpRule) -> set[int]:
    """Return the ranks that are wrong and jump beside the same kind of label since the last root, and take them up."""
    found = set()
    kind = kind_in_layers(label.key.label, label.level.layer), label.key.occurrence
    for verdict in label.ranks:
        if verdict.metrics is None or verdict.stats is None or _is_exact(verdict):
            continue
        typical, rows = before.errors.setdefault((*kind, verdict.rank), ([], []))
        lately = before.lately.setdefault(verdict.rank, [])
        begin = before.places.get((*kind, verdict.rank), 0)
        before.places[(*kind, verdict.rank)] = len(lately)
        typical.append(_typical(verdict))
        lately.append(typical[-1])
        rows.append(min(largest_error(verdict), _WHOLLY_WRONG))
        if verdict.status not in WRONG or len(rows) < 2:
            continue
        least = round_off_error(verdict)
        spread = typical[-1] <= _CARRIED * median(rows[:-1])
        recent = max(lately[begin:-1], default=0.0)
        single = rows[-1] > _ROWS_TIMES * max(rows[:-1])
        if (not spread and typical[-1] > _RECENT_TIMES * recent and jump(typical, least, rule.factor) is not None) or (
            single and jump(rows, 2 * least, _ROWS_TIMES * rule.factor_of_rows) is not None
        ):
            found.add(verdict.rank)
    return found


def _of_inputs(
    label: LabelVerdict, known: dict[tuple[int, str], tuple[float, LabelKey | None]], before: _Before
) -> tuple[float, LabelKey | None]:
    """Return the largest error of a label's wrong inputs, negative if none is wrong, and their root."""
    names = {name for v in label.ranks for side in (v.golden, v.actual) if side is not None for name in side.inputs}
    named = [known[label.key.task, name] for name in names if (label.key.task, name) in known]
    if not named:
        return before.largest, before.root
    return max(named, key=lambda each: each[0])


def _with_origin(verdict: RankVerdict, own: set[int]) -> RankVerdict:
    if verdict.status not in WRONG:
        return verdict
    return changed(verdict, origin=Origin.OWN if verdict.rank in own else Origin.INHERITED)


def _behind_ties(labels: Sequence[LabelVerdict], ties: Collection[LabelKey]) -> list[LabelVerdict]:
    """Let drift what inherits from ties and is explained by them."""
    found = []
    goes_on: dict[tuple[int, int], bool] = {}
    for label in reversed(labels):
        ranks = label.ranks
        if label.root in ties:
            ranks = tuple(_behind_tie(each, label, goes_on) for each in ranks)
            label = replace(label, ranks=ranks, status=worst([each.status for each in ranks]))
            label = label if label.status in WRONG else replace(label, root=None)
        for each in ranks:
            if each.metrics is not None and not _is_exact(each):
                goes_on[label.key.task, each.rank] = each.status in WRONG
        found.append(label)
    return found[::-1]


def _behind_tie(verdict: RankVerdict, label: LabelVerdict, goes_on: Mapping[tuple[int, int], bool]) -> RankVerdict:
    """Let a verdict drift if few rows (of exact types, less than half) are wrong, or the next label is not."""
    limits = verdict.limits
    if verdict.origin is not Origin.INHERITED or verdict.status is not Status.DIVERGED or limits is None:
        return verdict
    if verdict.stats is None or label.root is None:
        return verdict
    exact = _is_exact(verdict)
    if exact:
        single = 2 * verdict.stats.n_equal > verdict.stats.n
    else:
        single = verdict.stats.rows.count > 1 and _typical(verdict) <= limits.fail
    if not single and (exact or goes_on.get((label.key.task, verdict.rank), True)):
        return verdict
    what = "its worst rows follow" if single else "the label after it is right, so it follows"
    words = f"{what} from the ties of {label.root.label}: {verdict.reason}"
    return changed(verdict, status=Status.DRIFT, origin=None, reason=words)


def _is_tolerated(verdict: RankVerdict) -> bool:
    """Whether a rule of the policy lets pass what the limits that it replaces would not."""
    if verdict.limits is None or verdict.limits.instead_of == math.inf:
        return False
    right = verdict.status in (Status.MATCH, Status.DRIFT) and not verdict.bitwise
    return right and largest_error(verdict) > verdict.limits.instead_of


def _error(verdict: RankVerdict) -> float:
    """What a wrong label's error explains; infinite where it says nothing, or values are not finite."""
    found = largest_error(verdict)
    return found if verdict.status is Status.NONFINITE or math.isinf(found) else min(found, _ANY_FINITE)


def _typical(verdict: RankVerdict) -> float:
    """The error of a wrong label's median row, as far as it counts; infinite where values are not finite or known."""
    if is_only_round_off(verdict):
        return 0.0
    if verdict.status is Status.NONFINITE or verdict.metrics is None or verdict.stats is None:
        return math.inf
    found = median_row_error(verdict.stats, verdict.metrics)
    return math.inf if math.isnan(found) else min(found, _WHOLLY_WRONG)


def _is_exact(verdict: RankVerdict) -> bool:
    return verdict.limits is not None and verdict.limits.fail == 0.0

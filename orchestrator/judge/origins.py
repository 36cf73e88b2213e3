"""Own or inherited: a wrong label's error is its own unless its inputs are wrong and explain it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple

from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import WRONG, LabelVerdict, Origin, RankVerdict, Status, changed, worst
from aclcmp.orchestrator.core.weights import WeightFinding
from aclcmp.orchestrator.judge.growth import is_only_round_off, jump, largest_error, round_off_error
from aclcmp.orchestrator.judge.pair_status import median_row_error
from aclcmp.orchestrator.judge.policy import JumpRule
from aclcmp.orchestrator.judge.wrong_weights import words_on

NO_WEIGHTS: Mapping[str, WeightFinding] = {}
_ANY_FINITE = 1e100
"""An error that explains any but a non-finite one."""
_WHOLLY_WRONG = 1.0
"""Relative errors above this count as this: nothing of golden is left."""
_CARRIED = 0.5
"""A median row that is off by less than this part of the worst rows' usual error may carry what is spread from them."""
_RECENT_TIMES = 2.0
"""Factor by which the median row's error must exceed the largest of all labels since the layer before."""
_ROWS_TIMES = 1.5
"""Factor by which the worst row's error must jump more, and exceed all before, once something is wrong."""

_NOT_MEASURED: Mapping[tuple[LabelKey, int], bool] = {}

_Kind = tuple[str, int]
"""What a label is in every layer, and its occurrence."""


class _Cause(NamedTuple):
    """The largest error of wrong labels, which explains errors of what is computed from them, and their root."""

    error: float
    """Negative where nothing is wrong."""
    root: LabelKey | None


class _KindErrors(NamedTuple):
    """Errors of one kind of label on one rank since the last root, the newest last."""

    median_rows: list[float]
    worst_rows: list[float]
    all_kinds: list[float]
    """Those of the median rows of all labels of the rank."""
    begin: int
    """Where in `all_kinds` the label of this kind before the newest is."""


@dataclass(slots=True)
class _TaskHistory:
    """The errors of a task so far, from its first wrong label on."""

    errors: dict[tuple[_Kind, int], tuple[list[float], list[float]]] = field(default_factory=dict)
    """By kind of label and rank, since the last root: errors of median rows, and of worst rows."""
    all_kinds: dict[int, list[float]] = field(default_factory=dict)
    """By rank, since the last root: errors of the median rows of all labels."""
    places: dict[tuple[_Kind, int], int] = field(default_factory=dict)
    """By kind of label and rank: where in `all_kinds` the last one is."""
    largest: float = -1.0
    """Largest error of what is wrong; negative where nothing is yet."""
    root: LabelKey | None = None
    """The last label with an own divergence, or wrong weight, from which what follows inherits."""
    weight: LabelKey | None = None
    """The last wrong weight."""

    def add_errors(self, kind: _Kind, verdict: RankVerdict) -> _KindErrors:
        """Add the errors of a verdict; return those of its kind on its rank."""
        place = kind, verdict.rank
        median_rows, worst_rows = self.errors.setdefault(place, ([], []))
        all_kinds = self.all_kinds.setdefault(verdict.rank, [])
        begin = self.places.get(place, 0)
        self.places[place] = len(all_kinds)
        error = _median_row_error(verdict)
        median_rows.append(error)
        all_kinds.append(error)
        worst_rows.append(min(largest_error(verdict), _WHOLLY_WRONG))
        return _KindErrors(median_rows, worst_rows, all_kinds, begin)

    def add_wrong(self, key: LabelKey, error: float, *, is_root: bool) -> None:
        """Note that a label is wrong; a root begins the history of errors anew."""
        self.largest = max(self.largest, error)
        if is_root or self.root is None:
            self.root = key
        if is_root:
            self.errors, self.all_kinds, self.places = {}, {}, {}


def assign_origins(
    labels: Sequence[LabelVerdict],
    own_factor: float,
    rule: JumpRule,
    measured: Mapping[tuple[LabelKey, int], bool] = _NOT_MEASURED,
    weights: Mapping[str, WeightFinding] = NO_WEIGHTS,
) -> list[LabelVerdict]:
    """Tell own errors from inherited ones, in golden order.

    Where it was `measured` whether a (label, rank) is wrong by itself, that counts. Elsewhere the inputs of a label are
    those that it names, or else the labels before it in its task. A wrong label is own if none of its inputs is wrong,
    or if the error of its median row is more than `own_factor` times the largest of theirs, or jumps beside its kind in
    the layers since the last own one. Ranks exchange data in collectives, so inputs count on all ranks. Some labels
    inherit in their own way:

    - From ids that flipped in a tie all that follows may differ, so it inherits from them.
    - Exact types differ by any amount once their inputs do, so they inherit where an input is wrong.
    - What a rule of the policy tolerates explains errors as what is wrong does.
    - Single rows that are wrong behind a tie, and inherit from it, drift: they are those of tokens that took another
      way. So does what is wrong there and right again in the label after it, as rows are that were sorted by what
      flipped.
    - A label that was not compared, or is ignored, is as wrong as its own inputs.
    - Labels of a module whose weight is wrong, by name in `weights`, inherit from the weight, and so does what follows.
    """
    origins = _Origins(own_factor, rule, measured, weights)
    judged_labels = [origins.assign(label) for label in labels]
    return _let_drift_behind_ties(judged_labels, origins.ties) if origins.ties else judged_labels


class _Origins:
    """Assigns origins label by label, in golden order."""

    def __init__(
        self,
        own_factor: float,
        rule: JumpRule,
        measured: Mapping[tuple[LabelKey, int], bool],
        weights: Mapping[str, WeightFinding],
    ) -> None:
        self.ties: set[LabelKey] = set()
        """Labels with ids that flipped in a tie."""
        self._own_factor = own_factor
        self._rule = rule
        self._measured = measured
        self._weights = weights
        self._histories: dict[int, _TaskHistory] = defaultdict(_TaskHistory)
        self._causes: dict[tuple[int, str], _Cause] = {}
        """By task and name of a label: what it explains in the labels that name it as input."""

    def assign(self, label: LabelVerdict) -> LabelVerdict:
        """Return a label with the origin of each wrong rank, and the root from which it inherits."""
        history = self._histories[label.key.task]
        weight = self._weights.get(label.key.label)
        if weight is not None:
            history.weight = LabelKey(label.key.task, weight.parameter, 0)
            history.root = history.root or history.weight
        inputs = self._cause_of_inputs(label, history)
        wrong = [verdict for verdict in label.ranks if verdict.status in WRONG]
        first = inputs.error < 0 and inputs.root is None
        own = {v.rank for v in wrong if first or (inputs.error >= 0 and _exceeds(v, self._own_factor * inputs.error))}
        if self._rule.on and label.level.layer and history.largest > 0:
            own |= _ranks_that_jump(label, history, self._rule)
        if self._measured:
            known = {v.rank: found for v in wrong if (found := self._measured.get((label.key, v.rank))) is not None}
            own = {rank for rank in own if known.get(rank, True)} | {rank for rank, found in known.items() if found}
        if weight is not None:
            inputs, own = _Cause(inputs.error, history.weight), set()
        root = self._remember(label, own, inputs, history, by_weight=weight is not None)
        if not wrong:
            return label
        ranks = tuple(_with_origin(verdict, own) for verdict in label.ranks)
        if weight is not None:
            ranks = tuple(_with_weight(verdict, weight) for verdict in ranks)
        return replace(label, ranks=ranks, root=root if not own else None)

    def _cause_of_inputs(self, label: LabelVerdict, history: _TaskHistory) -> _Cause:
        """Return the largest error of a label's wrong inputs, and their root."""
        task = label.key.task
        names = {name for v in label.ranks for side in (v.golden, v.actual) if side is not None for name in side.inputs}
        named = [self._causes[task, name] for name in names if (task, name) in self._causes]
        if not named:
            return _Cause(history.largest, history.root)
        return max(named, key=lambda cause: cause.error)

    def _remember(
        self, label: LabelVerdict, own: Collection[int], inputs: _Cause, history: _TaskHistory, *, by_weight: bool
    ) -> LabelKey | None:
        """Note what a label explains in those that follow; return the root of its errors."""
        key = label.key
        counted = [verdict for verdict in label.ranks if not verdict.ignored]
        errors = [_explained_error(verdict) for verdict in counted if verdict.status in WRONG or _is_tolerated(verdict)]
        tied = any(verdict.ties and verdict.status is Status.DRIFT for verdict in counted)
        if tied:
            self.ties.add(key)
            errors.append(_ANY_FINITE)
        if not errors:
            right = label.status not in WRONG and any(verdict.metrics is not None for verdict in counted)
            self._causes[key.task, key.label] = _Cause(-1.0, None) if right else inputs
            return inputs.root
        is_root = tied or any(verdict.rank in own for verdict in counted)
        root = key if is_root or inputs.root is None else inputs.root
        self._causes[key.task, key.label] = _Cause(max(errors), root)
        history.add_wrong(root if by_weight and root else key, max(errors), is_root=is_root or by_weight)
        return root


def _exceeds(verdict: RankVerdict, error: float) -> bool:
    """Tell whether a wrong label's error is larger than its inputs explain."""
    return not _is_exact(verdict) and _median_row_error(verdict) > error


def _ranks_that_jump(label: LabelVerdict, history: _TaskHistory, rule: JumpRule) -> set[int]:
    """Return the wrong ranks that jump beside their kind of label since the last root; remember all errors."""
    kind = kind_in_layers(label.key.label, label.level.layer), label.key.occurrence
    jumping = set()
    for verdict in label.ranks:
        if verdict.metrics is not None and verdict.stats is not None and not _is_exact(verdict):
            errors = history.add_errors(kind, verdict)
            if verdict.status in WRONG and len(errors.worst_rows) > 1 and _is_jump(verdict, errors, rule):
                jumping.add(verdict.rank)
    return jumping


def _is_jump(verdict: RankVerdict, errors: _KindErrors, rule: JumpRule) -> bool:
    """Tell whether the newest errors of a kind stand out: that of the median row, or of a single row."""
    least = round_off_error(verdict)
    median_rows, rows = errors.median_rows, errors.worst_rows
    spread_from_rows = median_rows[-1] <= _CARRIED * median(rows[:-1])
    recent = max(errors.all_kinds[errors.begin : -1], default=0.0)
    is_largest = not spread_from_rows and median_rows[-1] > _RECENT_TIMES * recent
    if is_largest and jump(median_rows, least, rule.factor) is not None:
        return True
    single = rows[-1] > _ROWS_TIMES * max(rows[:-1])
    return single and jump(rows, 2 * least, _ROWS_TIMES * rule.factor_of_rows) is not None


def _with_origin(verdict: RankVerdict, own: set[int]) -> RankVerdict:
    if verdict.status not in WRONG:
        return verdict
    return changed(verdict, origin=Origin.OWN if verdict.rank in own else Origin.INHERITED)


def _with_weight(verdict: RankVerdict, weight: WeightFinding) -> RankVerdict:
    if verdict.status not in WRONG:
        return verdict
    return changed(verdict, reason=f"{words_on(weight)}: {verdict.reason}")


def _let_drift_behind_ties(labels: Sequence[LabelVerdict], ties: Collection[LabelKey]) -> list[LabelVerdict]:
    """Let drift what inherits from ties and is explained by them."""
    found = []
    next_is_wrong: dict[tuple[int, int], bool] = {}
    for label in reversed(labels):
        ranks = label.ranks
        if label.root in ties:
            ranks = tuple(_let_drift_behind_tie(each, label, next_is_wrong) for each in ranks)
            label = replace(label, ranks=ranks, status=worst([each.status for each in ranks]))
            label = label if label.status in WRONG else replace(label, root=None)
        for each in ranks:
            if each.metrics is not None and not _is_exact(each):
                next_is_wrong[label.key.task, each.rank] = each.status in WRONG
        found.append(label)
    return found[::-1]


def _let_drift_behind_tie(
    verdict: RankVerdict, label: LabelVerdict, next_is_wrong: Mapping[tuple[int, int], bool]
) -> RankVerdict:
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
        single = verdict.stats.rows.count > 1 and _median_row_error(verdict) <= limits.fail
    if not single and (exact or next_is_wrong.get((label.key.task, verdict.rank), True)):
        return verdict
    why = "its worst rows follow" if single else "the label after it is right, so it follows"
    words = f"{why} from the ties of {label.root.label}: {verdict.reason}"
    return changed(verdict, status=Status.DRIFT, origin=None, reason=words)


def _is_tolerated(verdict: RankVerdict) -> bool:
    """Tell whether a rule of the policy lets pass what the limits that it replaces would not."""
    if verdict.limits is None or verdict.limits.instead_of == math.inf:
        return False
    right = verdict.status in (Status.MATCH, Status.DRIFT) and not verdict.bitwise
    return right and largest_error(verdict) > verdict.limits.instead_of


def _explained_error(verdict: RankVerdict) -> float:
    """Return the error that a wrong label explains; infinite where it says nothing, or values are not finite."""
    error = largest_error(verdict)
    return error if verdict.status is Status.NONFINITE or math.isinf(error) else min(error, _ANY_FINITE)


def _median_row_error(verdict: RankVerdict) -> float:
    """Return the error of a label's median row, as far as it counts; infinite where it is not finite or not known."""
    if is_only_round_off(verdict):
        return 0.0
    if verdict.status is Status.NONFINITE or verdict.metrics is None or verdict.stats is None:
        return math.inf
    error = median_row_error(verdict.stats, verdict.metrics)
    return math.inf if math.isnan(error) else min(error, _WHOLLY_WRONG)


def _is_exact(verdict: RankVerdict) -> bool:
    return verdict.limits is not None and verdict.limits.fail == 0.0

"""Own or inherited: whether a wrong label's inputs were right, or explain its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aclcmp.orchestrator.judge.growth import jump
from aclcmp.orchestrator.judge.policy import JumpRule
from aclcmp.orchestrator.judge.table import least_of
from aclcmp.orchestrator.judge.verdicts import WRONG, LabelVerdict, Origin, RankVerdict, Status, changed
from aclcmp.orchestrator.plan.levels import kind_in_layers
from aclcmp.orchestrator.plan.regions import LabelKey

_ANY_FINITE = 1e100
"""An error that explains any but a non-finite one."""


@dataclass(slots=True)
class _Before:
    """Wrong labels of a task so far."""

    errors: dict[object, list[float]] = field(default_factory=dict)
    """Of each kind of label on each rank, since the last root."""

    largest: float = -1.0
    """Largest error; negative where nothing is wrong yet."""
    root: LabelKey | None = None
    """The own divergence from which what follows inherits: the last one."""


def with_origins(labels: Sequence[LabelVerdict], own_factor: float, rule: JumpRule) -> list[LabelVerdict]:
    """Tell own from inherited, in golden order.

    The inputs of a label are those that it names, or else the labels before it in its task. A wrong label is own if
    none of its inputs is wrong, or if its relative L2 error is more than `own_factor` times the largest of theirs.
    Ranks exchange data in collectives, so inputs count on all ranks. From ids that flipped in a tie all that follows
    may differ, so it inherits from them. Exact types differ by any amount once their inputs do, so they inherit where
    an input is wrong. A label that was not compared, or is ignored, is as wrong as its own inputs.
    """
    before: dict[int, _Before] = {}
    known: dict[tuple[int, str], tuple[float, LabelKey | None]] = {}
    told: list[LabelVerdict] = []
    for label in labels:
        key = label.key
        far = before.setdefault(key.task, _Before())
        error, root = _of_inputs(label, known, far)
        wrong = [verdict for verdict in label.ranks if verdict.status in WRONG]
        counts = [verdict for verdict in label.ranks if not verdict.ignored]
        tied = any(verdict.ties and verdict.status is Status.DRIFT for verdict in counts)
        if not wrong and not tied:
            compared = any(verdict.metrics is not None for verdict in counts)
            known[key.task, key.label] = (-1.0, None) if compared else (error, root)
            told.append(label)
            continue
        own = {
            verdict.rank
            for verdict in wrong
            if error < 0 or (not _is_exact(verdict) and _error(verdict) > own_factor * error)
        }
        kind = kind_in_layers(key.label, label.level.layer), key.occurrence
        jumps = rule.on and label.level.layer and error > 0
        for verdict in (v for v in wrong if jumps and v.metrics is not None and not _is_exact(v)):
            history = far.errors.setdefault((*kind, verdict.rank), [])
            history.append(_error(verdict))
            if jump(history, least_of(*verdict.dtypes), rule.factor, rule.deviations):
                own.add(verdict.rank)
        ranks = tuple(_with_origin(verdict, own) for verdict in label.ranks)
        errors = [_error(verdict) for verdict in counts if verdict.status in WRONG] + [_ANY_FINITE] * tied
        if errors:
            is_root = tied or any(verdict.rank in own for verdict in counts)
            largest = max(errors)
            known[key.task, key.label] = largest, key if is_root else root
            far.largest = max(far.largest, largest)
            far.root = key if is_root else far.root
            far.errors = {} if is_root else far.errors
        else:
            known[key.task, key.label] = error, root
        told.append(replace(label, ranks=ranks, root=root if wrong and not own else None))
    return told


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


def _error(verdict: RankVerdict) -> float:
    """The relative L2 error of a wrong label; infinite where it says nothing, or values are not finite."""
    if verdict.status is Status.NONFINITE or verdict.metrics is None or math.isnan(verdict.metrics.rel_l2):
        return math.inf
    return min(verdict.metrics.rel_l2, _ANY_FINITE)


def _is_exact(verdict: RankVerdict) -> bool:
    return verdict.limits is not None and verdict.limits.fail == 0.0

"""Own errors: what labels are off by where all before them is golden's, measured in a run with `--local`.

Measured, they tell what is wrong by itself, however many labels are; elsewhere `origins` infers it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple, cast

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.compact import make_copier, slots_of
from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence, OwnError, RankEvidence
from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.text import figure
from aclcmp.orchestrator.core.verdicts import WRONG, Limits, RankVerdict, Status, changed
from aclcmp.orchestrator.judge.limits import LabelLimits
from aclcmp.orchestrator.judge.pair_status import nonfinite_places, within_limits

OwnErrors = Mapping[LabelKey, Mapping[int, OwnError]]
"""By label and rank."""
OUT_OF_LINE = 20.0
"""Factor of the median own error of a run from which one is out of line."""
_FEWEST = 16
"""Own errors without which nothing is usual."""
OUT_OF_KIND = 5.0
"""The same in half precision, of the median of the kind in all layers: trained models that are right reach 1.9."""
_FEWEST_LAYERS = 3
_FEWEST_ROWS = 8
"""Rows whose median tells what is usual; the error of a single one varies."""
_HALF = 16.0
"""Limits that warn from less than so many epsilons on leave no room below them: those of half types."""


class Measured(NamedTuple):
    """An own error of a (label, rank)."""

    name: tuple[LabelKey, int]
    own: OwnError
    limits: Limits
    kind: tuple[str, int]
    """What the label is in every layer, and the rank."""
    layer: str


class OwnVerdict(NamedTuple):
    """The status of an own error, its part of the limit, and the limit."""

    status: Status
    margin: float
    limit: float


OwnVerdicts = Mapping[tuple[LabelKey, int], OwnVerdict]
"""By label and rank."""
Judged = Sequence[tuple[LabelKey, list[RankVerdict]]]

_copy_evidence = make_copier(RankEvidence, slots_of(RankEvidence))


def own_errors(measured: Evidence) -> dict[LabelKey, dict[int, OwnError]]:
    """Return the own errors, from the evidence of a run with `--local`."""
    return {
        label.key: {each.rank: error for each in label.ranks if (error := _error_of(each)) is not None}
        for label in measured.labels
    }


def _error_of(evidence: RankEvidence) -> OwnError | None:
    stats, metrics = evidence.stats, evidence.metrics
    if stats is None or metrics is None or not stats.n or evidence.gap is not None:
        return None
    rows = stats.rows.count
    if nonfinite_places(stats):
        return OwnError(math.inf, math.inf, math.inf, math.inf, rows)
    if stats.n_equal == stats.n:
        return OwnError(0.0, 0.0, 0.0, 0.0, rows)
    rms = math.sqrt(stats.sum_dd / stats.n_finite) if stats.n_finite else 0.0
    of_rows = (metrics.worst_row, metrics.row_p50) if rows else (metrics.rel_l2, metrics.rel_l2)
    return OwnError(metrics.rel_l2, *of_rows, rms, rows)


def add_own_errors(evidence: Evidence, own: OwnErrors) -> Evidence:
    """Add own errors to the evidence of a run."""
    labels = []
    for label in evidence.labels:
        by_rank = own.get(label.key, {})
        ranks = tuple([_copy_evidence(each, own=by_rank.get(each.rank)) for each in label.ranks]) if by_rank else None
        labels.append(label if ranks is None else LabelEvidence(label.key, label.level, ranks))
    return replace(evidence, labels=tuple(labels))


def limits_of_own(label: LabelEvidence, ranks: Sequence[RankVerdict], limits_of: LabelLimits) -> Iterator[Measured]:
    """Yield the own errors of a label with their limits, those of one layer: they gather nothing from layers before.

    Measured floors do not count, for they do gather it.
    """
    for verdict in ranks:
        if verdict.own is not None and verdict.stats is not None:
            evidence = _copy_evidence(cast("RankEvidence", verdict), floors=())
            kind = kind_in_layers(label.key.label, label.level.layer), verdict.rank
            yield Measured((label.key, verdict.rank), verdict.own, limits_of(evidence), kind, label.level.layer)


def judge_own_errors(measured: Sequence[Measured]) -> OwnVerdicts:
    """Judge own errors by their limits, and by what is usual for the run.

    Most modules are right, and what they are off by is the run's noise: an error that is beyond the limit for warnings,
    and `OUT_OF_LINE` times the median of those of its type, is wrong too. In half precision so is one beyond the
    step of the type that is `OUT_OF_KIND` times the median of its kind: the same code in other layers.
    """
    usual: dict[str, list[float]] = defaultdict(list)
    of_kind: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for each in measured:
        if each.limits.fail > 0.0 and each.limits.instead_of == math.inf:
            usual[each.limits.dtype].append(_limiting_error(each.own, each.limits))
            if _has_kind(each):
                of_layer = of_kind[each.kind]
                of_layer[each.layer] = max(of_layer.get(each.layer, 0.0), _usual_error(each.own))
    noise = {dtype: median(errors) for dtype, errors in usual.items() if len(errors) >= _FEWEST}
    kinds = {kind: median(errors.values()) for kind, errors in of_kind.items() if len(errors) >= _FEWEST_LAYERS}
    return {
        each.name: _judge_beside_kind(
            each, _judge(each.own, each.limits, noise.get(each.limits.dtype, math.inf)), kinds
        )
        for each in measured
    }


def _has_kind(measured: Measured) -> bool:
    """Tell whether what is usual for its kind says more than the limits."""
    eps = _eps(measured.limits)
    is_half = eps is not None and measured.limits.warn < _HALF * eps
    return is_half and bool(measured.layer) and (measured.own.rows == 0 or measured.own.rows >= _FEWEST_ROWS)


def _usual_error(own: OwnError) -> float:
    return own.row_p50 if own.rows else own.rel_l2


def _judge_beside_kind(measured: Measured, verdict: OwnVerdict, kinds: Mapping[tuple[str, int], float]) -> OwnVerdict:
    """Return the verdict, or another where the error is out of line with its kind."""
    of_kind, eps = kinds.get(measured.kind), _eps(measured.limits)
    is_by_rule = measured.limits.instead_of != math.inf
    if is_by_rule or not _has_kind(measured) or verdict.status in WRONG or of_kind is None or eps is None:
        return verdict
    limit, error = max(OUT_OF_KIND * of_kind, eps), _usual_error(measured.own)
    return OwnVerdict(Status.DIVERGED, error / limit, limit) if error > limit else verdict


def _eps(limits: Limits) -> float | None:
    return DTYPES[limits.dtype].eps if limits.dtype else None


def _limiting_error(own: OwnError, limits: Limits) -> float:
    return max(own.rel_l2 / limits.rows, own.worst_row / limits.rows, own.row_p50 if own.rows > 1 else 0.0)


def _judge(own: OwnError, limits: Limits, noise: float) -> OwnVerdict:
    if own.rel_l2 == 0.0:
        return OwnVerdict(Status.MATCH, 0.0, limits.fail)
    if math.isinf(own.rms):
        return OwnVerdict(Status.NONFINITE, math.inf, limits.fail)
    if limits.fail == 0.0:
        return OwnVerdict(Status.DIVERGED, math.inf, 0.0)
    eps = _eps(limits)
    if eps is not None and own.rms <= eps * limits.scale and not own.rel_l2 <= limits.fail:
        return OwnVerdict(Status.MATCH, 0.0, limits.fail)  # round-off beside the values around it, of terms that cancel
    most = limits.fail
    if limits.instead_of == math.inf:
        most = min(limits.fail, max(limits.warn, OUT_OF_LINE * noise))
    status, margin = within_limits(_limiting_error(own, limits), replace(limits, fail=most))
    return OwnVerdict(status, margin, most)


def apply_own_errors(judged: Judged, jumped: Judged, own: OwnVerdicts) -> list[tuple[LabelKey, list[RankVerdict]]]:
    """Let own errors count: a label whose own error is wrong is wrong; one with a right one does not jump.

    `judged` are the verdicts by limits alone, `jumped` those with jumps, which only guess where a fault is.
    """
    return [
        (key, [_with_own(one, other, own.get((key, one.rank))) for one, other in zip(before, after, strict=True)])
        for (key, before), (_, after) in zip(judged, jumped, strict=True)
    ]


def _with_own(judged: RankVerdict, jumped: RankVerdict, own: OwnVerdict | None) -> RankVerdict:
    if own is None or judged.own is None:
        return jumped
    status, margin, limit = own
    if status not in WRONG:
        return judged
    carried = judged.reason
    error = "values are not finite" if math.isinf(judged.own.rms) else f"relative L2 {figure(judged.own.rel_l2)}"
    words = f"from golden's values it is off by itself: {error}, limit {limit:.3g}; carried: {carried}"
    least = judged.margin or 0.0
    kept = judged.status if judged.status in WRONG else status
    return changed(judged, status=kept, reason=words, margin=max(least, margin))

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
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.text import figure
from aclcmp.orchestrator.core.verdicts import WRONG, Limits, RankVerdict, Status, changed
from aclcmp.orchestrator.judge.limits import LabelLimits
from aclcmp.orchestrator.judge.pair_status import nonfinite_places, within_limits

OwnErrors = Mapping[LabelKey, Mapping[int, OwnError]]
"""By label and rank."""
Measured = tuple[tuple[LabelKey, int], OwnError, Limits]
"""Label and rank, the own error, and its limits."""
OUT_OF_LINE = 20.0
"""Factor of the median own error of a run from which one is out of line."""
_FEWEST = 16
"""Own errors without which nothing is usual."""


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


def limits_of_own(key: LabelKey, ranks: Sequence[RankVerdict], limits_of: LabelLimits) -> Iterator[Measured]:
    """Yield the own errors of a label with their limits, those of one layer: they gather nothing from layers before.

    Measured floors do not count, for they do gather it.
    """
    for verdict in ranks:
        if verdict.own is not None and verdict.stats is not None:
            evidence = _copy_evidence(cast("RankEvidence", verdict), floors=())
            yield (key, verdict.rank), verdict.own, limits_of(evidence)


def judge_own_errors(measured: Sequence[Measured]) -> OwnVerdicts:
    """Judge own errors by their limits, and by what is usual for the run.

    Most modules are right, and what they are off by is the run's noise: an error that is beyond the limit for warnings,
    and `OUT_OF_LINE` times the median of those of its type, is wrong too.
    """
    usual: dict[str, list[float]] = defaultdict(list)
    for _, own, limits in measured:
        if limits.fail > 0.0 and limits.instead_of == math.inf:
            usual[limits.dtype].append(_limiting_error(own, limits))
    noise = {dtype: median(errors) for dtype, errors in usual.items() if len(errors) >= _FEWEST}
    return {name: _judge(own, limits, noise.get(limits.dtype, math.inf)) for name, own, limits in measured}


def _limiting_error(own: OwnError, limits: Limits) -> float:
    return max(own.rel_l2 / limits.rows, own.worst_row / limits.rows, own.row_p50 if own.rows > 1 else 0.0)


def _judge(own: OwnError, limits: Limits, noise: float) -> OwnVerdict:
    if own.rel_l2 == 0.0:
        return OwnVerdict(Status.MATCH, 0.0, limits.fail)
    if math.isinf(own.rms):
        return OwnVerdict(Status.NONFINITE, math.inf, limits.fail)
    if limits.fail == 0.0:
        return OwnVerdict(Status.DIVERGED, math.inf, 0.0)
    eps = DTYPES[limits.dtype].eps if limits.dtype else None
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

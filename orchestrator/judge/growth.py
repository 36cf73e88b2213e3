"""Where an error is larger than its own history explains: the same kind of label in the layers before it.

Round-off grows slowly with depth, a fault at once. Only layers before a label count: those after it carry its error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from aclcmp.orchestrator.judge.policy import JumpRule
from aclcmp.orchestrator.judge.table import least_of
from aclcmp.orchestrator.judge.verdicts import WRONG, RankVerdict, Status, changed
from aclcmp.orchestrator.plan.levels import Level, kind_in_layers
from aclcmp.orchestrator.plan.regions import LabelKey

HISTORY = 8
"""Layers that are looked back."""
FEWEST = 3
"""With fewer there is no history."""
SHORT = 6
"""With fewer the first layers are in it, in which errors grow fast."""
SHORT_FACTOR = 3.0
"""Least factor beside a short history."""
SPREAD = 0.15
"""Least standard deviation of the logarithm of errors, where layers agree by chance."""

Labels = Sequence[tuple[LabelKey, list[RankVerdict]]]


@dataclass(frozen=True, slots=True)
class Jump:
    """An error beside its history: how many times the usual one it is, and how many standard deviations that are."""

    factor: float
    deviations: float


def jump(errors: Sequence[float], least: float, factor: float, deviations: float) -> Jump | None:
    """Return by how much the last of a kind's errors, in the order of layers, is out of line; None if it is not.

    Errors below `least` count as that: what is below round-off has no history. The logarithm of an error is held
    against the median of those before it, in units of their median absolute deviation times 1.4826.
    """
    history = [max(error, least) for error in errors[:-1][-HISTORY:] if math.isfinite(error)]
    error = errors[-1]
    if len(history) < FEWEST or not math.isfinite(error) or error <= least:
        return None
    logs = [math.log(each) for each in history]
    usual = median(logs)
    spread = max(1.4826 * median(abs(each - usual) for each in logs), SPREAD)
    needed = factor if len(history) >= SHORT else max(factor, SHORT_FACTOR)
    found = Jump(error / math.exp(usual), (math.log(error) - usual) / spread)
    return found if found.deviations > deviations and found.factor > needed else None


def with_jumps(
    labels: Labels, levels: Mapping[LabelKey, Level], rule: JumpRule
) -> list[tuple[LabelKey, list[RankVerdict]]]:
    """Make `diverged` what drifts and jumps beside the same kind of label in the layers before; labels in golden order.

    Only before anything is wrong in a task, or ids flip in a tie: what follows jumps because of it. What is ignored
    counts not. Each rank has its own history.
    """
    errors: dict[object, list[float]] = defaultdict(list)
    rows: dict[object, list[float]] = defaultdict(list)
    wrong: set[int] = set()
    found = []
    for key, ranks in labels:
        if rule.on and levels[key].layer and key.task not in wrong:
            kind = kind_in_layers(key.label, levels[key].layer)
            ranks = [
                _beside_history(verdict, (key.task, kind, key.occurrence), errors, rows, rule) for verdict in ranks
            ]
        if any((v.status in WRONG or (v.ties and v.status is Status.DRIFT)) and not v.ignored for v in ranks):
            wrong.add(key.task)
        found.append((key, ranks))
    return found


def _beside_history(
    verdict: RankVerdict,
    kind: tuple[int, str, int],
    errors: dict[object, list[float]],
    rows: dict[object, list[float]],
    rule: JumpRule,
) -> RankVerdict:
    metrics, limits = verdict.metrics, verdict.limits
    if metrics is None or limits is None or limits.fail == 0.0:
        return verdict
    of_kind = (*kind, verdict.rank)
    for known, error in ((errors[of_kind], metrics.rel_l2), (rows[of_kind], metrics.worst_row)):
        known.append(error)
        del known[: -HISTORY - 1]
    if verdict.status is not Status.DRIFT:
        return verdict
    least = least_of(*verdict.dtypes)
    jumped = jump(errors[of_kind], least, rule.factor, rule.deviations) or jump(
        rows[of_kind], 2 * least, rule.factor_of_rows, rule.deviations
    )
    if jumped is None:
        return verdict
    beside = f"{jumped.factor:.2g} times that of the layers before it ({jumped.deviations:.0f} standard deviations)"
    return changed(verdict, status=Status.DIVERGED, reason=f"its error is {beside}: {verdict.reason}")

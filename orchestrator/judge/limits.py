"""The limits of a label: those of the policy's rule, of its noise floor, or of its dtype and depth."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.compact import number_reader
from aclcmp.orchestrator.core.evidence import LabelEvidence, RankEvidence
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import Limits
from aclcmp.orchestrator.judge.dtype_limits import MOST, ROWS, limits_of, narrower, round_off_of, table_name
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.judge.precision import Precision, Precisions

_LATELY = 8
"""Labels whose values are remembered."""


class Depths:
    """The number of layers before each label; labels are passed in golden order."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def of(self, label: LabelEvidence) -> int:
        """Return the number of the label's layer; outside of layers, that of the last one in its task."""
        task = label.key.task
        if label.level.layer.isdecimal():
            self._last[task] = int(label.level.layer)
        return self._last.get(task, 0)


_of_type = number_reader(PairStats, "mantissa_x", "mantissa_y", "n_finite")


class Scales:
    """The size of the values of the labels before each one; labels are passed in golden order."""

    def __init__(self) -> None:
        self._lately: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_LATELY))

    def of(self, label: LabelEvidence) -> float:
        """Return the median of the root mean squares of the labels before it in its task; 0 where there are none."""
        sizes = self._lately[label.key.task]
        return median(sizes) if sizes else 0.0

    def take(self, label: LabelEvidence, ranks: Sequence[RankEvidence]) -> None:
        """Remember a label by the first rank on which it was compared."""
        for each in ranks:
            if each.stats is not None and each.stats.n_finite:
                size = math.sqrt(each.stats.sum_xx / each.stats.n_finite)
                if 0.0 < size < math.inf and DTYPES[each.dtypes[0]].eps is not None:
                    self._lately[label.key.task].append(size)
                return


class LabelLimits:
    """The limits of one label on its ranks, computed once for all that were compared alike."""

    def __init__(self, label: LabelEvidence, depth: int, policy: Policy, precisions: Precisions, scale: float) -> None:
        """Take the arguments of `limits_for`; `scale` is that of the labels before."""
        self._label, self._depth, self._policy, self._precisions = label, depth, policy, precisions
        self._scale = scale
        self._known: dict[object, Limits] = {}

    def __call__(self, evidence: RankEvidence) -> Limits:
        """Return the limits for what was compared on a rank."""
        stats = evidence.stats
        own = (*_of_type(stats), stats.rows.count) if stats is not None else None
        golden, actual = evidence.golden, evidence.actual
        alike = (evidence.dtypes, evidence.floors, own, golden and golden.inputs, actual and actual.inputs)
        found = self._known.get(alike)
        if found is None:
            counts = self._precisions.of(self._label, evidence)
            found = limits_for(self._label, evidence, self._depth, self._policy, counts)
            found = self._known[alike] = replace(found, scale=self._scale)
        return found


def limits_for(
    label: LabelEvidence, evidence: RankEvidence, depth: int, policy: Policy, counts: Precision | None = None
) -> Limits:
    """Return the limits for what was compared of a label on a rank, and where they come from.

    The first of these counts: exact types allow nothing; a rule of the policy; a measured floor, in the order of
    `FloorSource`, but at least round-off; the table. A floor of 0 is left out, for two right computations may give the
    same bits by chance; so is one whose limit would reach `MOST`, for what lies so far apart is not noise. `counts` is
    the type as which the label counts, by default its own.
    """
    dtype = narrower(*evidence.dtypes)
    as_type, why = counts or Precision(dtype, "")
    number = evidence.stats.rows.count if evidence.stats is not None else 0
    table = limits_of(as_type, as_type, policy.limits, depth, number)
    if table.fail == 0.0:
        return table
    if why:
        table = replace(table, source=f"{table.source}; {why}")
    for rule in policy.rules:
        if rule.scope.holds(label.key, label.level, dtype) or (
            rule.scope.dtype and rule.scope.holds(label.key, label.level, table_name(dtype))
        ):
            return Limits(rule.warn, rule.fail, f"policy: {rule.scope.pattern}", ROWS, table.fail, as_type)
    for floor in evidence.floors:
        if floor.source in policy.floors and _is_usable(floor, *evidence.dtypes):
            warn, fail = policy.floors[floor.source]
            noise = max(floor.rel_l2, floor.row_p50, round_off_of(as_type, as_type))
            if fail * noise >= MOST:
                continue
            rows = max(floor.worst_row / noise, 1.0) if floor.worst_row < float("inf") else 1.0
            rows = min(rows, MOST / (fail * noise))
            return Limits(warn * noise, fail * noise, f"{fail:g} x {floor.source.value} floor", rows, dtype=as_type)
    return table


def _is_usable(floor: Floor, golden: str, actual: str) -> bool:
    """Tell whether a floor is finite, not 0, and holds for the pair's dtypes.

    A floor that was measured between golden tensors is golden's round-off: it says nothing of a narrower actual dtype.
    """
    known = floor.source is FloorSource.PROFILE or round_off_of(golden, golden) == round_off_of(golden, actual)
    return known and 0.0 < floor.rel_l2 < float("inf")

"""What moves the margin between two tokens: how it is compared, and how much of it each part of the model moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aclcmp.labeling.shard.margin_table import Margin
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import Pair


class Share(NamedTuple):
    """How far a part of the model moved a margin, to first order."""

    label: str
    """The module at whose end the part ends: it begins at the end of the one before."""
    moved: float


Shares = Mapping[Margin, tuple[Share, ...]]
"""By the margin, in the order in which the model computes."""


@dataclass(frozen=True, slots=True)
class PointPlan:
    """A point of the residual stream, with its gradient beside each label whose sum is the stream there."""

    name: str
    size: int
    """Elements of the gradient."""
    golden: tuple[LabelPlan, ...]
    """In their pairs the gradient is "golden", and golden is "actual"."""
    actual: tuple[LabelPlan, ...]
    """Likewise, with actual as it is; empty where it has no such label."""


@dataclass(frozen=True, slots=True)
class MarginPlan:
    """A margin, and its points in the order in which the model computes."""

    margin: Margin
    points: tuple[PointPlan, ...]


def pairs_of(plans: Iterable[MarginPlan]) -> list[Pair]:
    """Return all that is compared for margins."""
    return [
        pair
        for plan in plans
        for point in plan.points
        for label in (*point.golden, *point.actual)
        for pair in label.pairs
    ]

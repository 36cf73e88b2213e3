"""How much of the move of a margin between two tokens each part of the model made.

At a point of the residual stream with the gradient g of the margin, golden's stream p and actual's a, the error so far
moves the margin by g · p - g · a, to first order. A part of the model makes the difference of the points around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from aclcmp.orchestrator.core.margins import MarginPlan, PointPlan, Share, Shares
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.stats import Basis, Outcomes, PairStats


def share_margins(plans: Iterable[MarginPlan], outcomes: Outcomes) -> Shares:
    """Return the shares of each margin of which all points were compared."""
    found = {}
    for plan in plans:
        moved = [_move_at(point, outcomes) for point in plan.points]
        known = [each for each in moved if each is not None]
        if known and len(known) == len(moved):
            before = [0.0, *known]
            found[plan.margin] = tuple(
                Share(point.name, here - there) for point, here, there in zip(plan.points, known, before, strict=False)
            )
    return found


def _move_at(point: PointPlan, outcomes: Outcomes) -> float | None:
    """Return how far the error at a point moves the margin, None where not all of it was compared."""
    golden, actual = (
        [_product(label, point.size, outcomes) for label in side] for side in (point.golden, point.actual)
    )
    products = [each for each in (*golden, *actual) if each is not None]
    if not golden or not actual or len(products) < len(golden) + len(actual):
        return None
    return sum(products[: len(golden)]) - sum(products[len(golden) :])


def _product(label: LabelPlan, size: int, outcomes: Outcomes) -> float | None:
    """Return the product of the gradient and a label, as the first rank has it that holds all of its rows."""
    for rank, group in groupby(label.pairs, attrgetter("rank")):
        (key,) = {pair.key for pair in group}
        stats = outcomes.get((key, rank))
        if isinstance(stats, PairStats) and stats.basis is Basis.VALUES and stats.n == stats.n_finite == size:
            return stats.sum_xy
    return None

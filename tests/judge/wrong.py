"""Labels with real statistics, and their diagnoses, made from arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.diagnosis import HISTOGRAM_BINS, ChannelSums, Look
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.judge.judge import judge

KEY = LabelKey(0, "x", 0)
FACTS = SideFacts("f.h5", "float32", (8, 16), "cpu", "model.py:7", 0, 0.0)


def label_of(x: np.ndarray, actual: Mapping[int, np.ndarray]) -> LabelVerdict:
    """Return the verdict on a label of which each rank holds the whole."""
    region = Region.whole(x.shape)

    def operand(values: np.ndarray) -> Operand:
        return Operand(values.astype(np.float32).ravel(), "float32", x.shape, region)

    source = Source("f.h5", 0, "float32", x.shape)
    pairs = tuple(Pair(KEY, rank, source, region, source, region, x.shape, region, "same shape") for rank in actual)
    plan = Plan(
        (LabelPlan(KEY, dict.fromkeys(actual, Sides(FACTS, FACTS)), pairs),), {KEY: level_of("x", "", "")}, (), 0, ()
    )
    outcomes: Outcomes = {
        (KEY, rank): pair_stats(operand(x), operand(y), x.shape, region) for rank, y in actual.items()
    }
    return judge(plan, outcomes, run_failed=False).labels[0]


def look_of(x: np.ndarray, y: np.ndarray) -> Look:
    """Return the diagnosis of two whole arrays."""
    sums = (((side.reshape(-1, x.shape[-1])) ** 2).sum(0) for side in (x, y - x))
    channels = ChannelSums(1, np.arange(x.shape[-1]), *sums)
    return Look(channels, np.zeros(HISTOGRAM_BINS, np.int64), fits_of(x, y))

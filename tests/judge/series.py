"""Verdicts on whole series of labels, made from arrays in golden order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import ml_dtypes
import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.evidence import Evidence
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, RankVerdict, Status
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Policy
from tests.judge.test_judge import FACTS

Array = npt.NDArray[np.generic]
Both = tuple[Array, Array]
"""Golden and actual."""

BF16 = np.dtype(ml_dtypes.bfloat16)
POLICY = Policy()


def round_to(values: Array, dtype: npt.DTypeLike = BF16) -> npt.NDArray[np.float32]:
    """Round values to a narrow type, and return them in float32."""
    return values.astype(dtype).astype(np.float32)


def with_error(values: Array, error: float, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return values with a random error, of this relative L2 in each row."""
    wide = values.astype(np.float64)
    noise = np.random.default_rng(seed).standard_normal(wide.shape)
    rows = np.linalg.norm(wide, axis=-1, keepdims=True) / np.linalg.norm(noise, axis=-1, keepdims=True)
    return wide + error * noise * rows


def stats_of(golden: Array, actual: Array) -> PairStats:
    """Return the statistics of a pair of one shape, of any types."""
    region = Region.whole(golden.shape)

    def operand(side: Array) -> Operand:
        bits = np.ascontiguousarray(side).reshape(-1)
        return Operand(bits.view(np.uint16) if side.dtype == BF16 else bits, side.dtype.name, side.shape, region)

    return pair_stats(operand(golden), operand(actual), golden.shape, region)


def evidence_on(labels: Mapping[str, Both], inputs: Mapping[str, tuple[str, ...]] | None = None) -> Evidence:
    """Return the evidence of labels on one rank; `inputs` are the inputs that they name."""
    planned = []
    outcomes: Outcomes = {}
    for name, (golden, actual) in labels.items():
        key, region = LabelKey(0, name, 0), Region.whole(golden.shape)
        sources = [Source("f.h5", 0, side.dtype.name, side.shape) for side in (golden, actual)]
        pair = Pair(key, 0, sources[0], region, sources[1], region, golden.shape, region, "same shape")
        facts = replace(FACTS, inputs=(inputs or {}).get(name, ()))
        planned.append(LabelPlan(key, {0: Sides(facts, facts)}, (pair,)))
        outcomes[key, 0] = stats_of(golden, actual)
    levels = {each.key: level_of(each.key.label, "", "") for each in planned}
    return collect_evidence(Plan(tuple(planned), levels, (), 0, ()), outcomes, run_failed=False)


def judge_on(
    labels: Mapping[str, Both], policy: Policy = POLICY, inputs: Mapping[str, tuple[str, ...]] | None = None
) -> Judgement:
    """Judge labels on one rank."""
    return judge_evidence(evidence_on(labels, inputs), policy)


def verdict_on(judgement: Judgement, name: str) -> RankVerdict:
    """Return the verdict on a label."""
    (found,) = (label.ranks[0] for label in judgement.labels if label.key.label == name)
    return found


def wrong(judgement: Judgement) -> dict[str, Origin | None]:
    """Return the origin of each label that neither matches nor drifts."""
    return {
        label.key.label: label.ranks[0].origin
        for label in judgement.labels
        if label.status not in (Status.MATCH, Status.DRIFT)
    }


def first(judgement: Judgement) -> str | None:
    """Return the label of the first divergence, if there is one."""
    return judgement.first_divergence.key.label if judgement.first_divergence else None

"""What a policy lets pass: labels that may diverge, and labels that count not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aclcmp.orchestrator.judge.policy import Excuse, Policy
from aclcmp.orchestrator.judge.table import narrower
from aclcmp.orchestrator.judge.verdicts import WRONG, LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.plan.levels import Level
from aclcmp.orchestrator.plan.regions import LabelKey


def with_excuses(labels: Sequence[LabelVerdict], policy: Policy) -> list[LabelVerdict]:
    """Say of each verdict that the policy lets pass why it does; its status stays what it is.

    A divergence that inherits from one that is allowed is none of its own: `FailOn.OWN` lets it pass too.
    """
    if not policy.allow and not policy.ignore:
        return list(labels)
    return [
        replace(each, ranks=tuple(_excused(v, each.key, each.level, policy) for v in each.ranks)) for each in labels
    ]


def _excused(verdict: RankVerdict, key: LabelKey, level: Level, policy: Policy) -> RankVerdict:
    dtype = narrower(*verdict.dtypes) if all(verdict.dtypes) else ""

    def first(rules: Sequence[Excuse]) -> Excuse | None:
        for rule in rules:
            here = rule.ranks is None or verdict.rank in rule.ranks
            if here and rule.scope.holds(key, level, dtype) and _within(verdict, rule):
                return rule
        return None

    if rule := first(policy.ignore):
        return replace(verdict, excused=rule.reason or "ignored by the policy", ignored=True)
    if (verdict.status in WRONG or verdict.status is Status.DRIFT) and (rule := first(policy.allow)):
        return replace(verdict, excused=rule.reason or "allowed by the policy")
    return verdict


def _within(verdict: RankVerdict, rule: Excuse) -> bool:
    if rule.up_to is None:
        return True
    metrics = verdict.metrics
    return metrics is not None and verdict.status is not Status.NONFINITE and metrics.rel_l2 <= rule.up_to

"""Labels that a policy lets pass: those that may diverge, and those that do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import WRONG, LabelVerdict, RankVerdict, Status, changed
from aclcmp.orchestrator.judge.dtype_limits import narrower
from aclcmp.orchestrator.judge.policy import Excuse, Policy


def apply_ignore_rules(verdict: RankVerdict, key: LabelKey, level: Level, policy: Policy) -> RankVerdict:
    """Mark a verdict that the policy ignores, with the reason; its status stays, and nothing inherits from it."""
    if rule := _first_rule(policy.ignore, verdict, key, level):
        return changed(verdict, excused=rule.reason or "ignored by the policy", ignored=True)
    return verdict


def apply_allow_rules(labels: Sequence[LabelVerdict], policy: Policy) -> list[LabelVerdict]:
    """Mark each verdict that the policy allows, with the reason; its status stays.

    A divergence that inherits from an allowed one is not own: `FailOn.OWN` lets it pass too.
    """
    if not policy.allow:
        return list(labels)
    return [
        replace(each, ranks=tuple(_apply_allow_rule(v, each.key, each.level, policy) for v in each.ranks))
        for each in labels
    ]


def _apply_allow_rule(verdict: RankVerdict, key: LabelKey, level: Level, policy: Policy) -> RankVerdict:
    differs = verdict.status in (*WRONG, Status.DRIFT) and not verdict.ignored
    if differs and (rule := _first_rule(policy.allow, verdict, key, level)):
        return changed(verdict, excused=rule.reason or "allowed by the policy")
    return verdict


def _first_rule(rules: Sequence[Excuse], verdict: RankVerdict, key: LabelKey, level: Level) -> Excuse | None:
    dtype = narrower(*verdict.dtypes) if all(verdict.dtypes) else ""
    for rule in rules:
        here = rule.ranks is None or verdict.rank in rule.ranks
        if here and rule.scope.holds(key, level, dtype) and _within(verdict, rule):
            return rule
    return None


def _within(verdict: RankVerdict, rule: Excuse) -> bool:
    if rule.up_to is None:
        return True
    metrics = verdict.metrics
    return metrics is not None and verdict.status is not Status.NONFINITE and metrics.rel_l2 <= rule.up_to

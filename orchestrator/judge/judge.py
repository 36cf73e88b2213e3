"""From evidence to verdicts. Pure, so that a run can be judged again without its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence, RankEvidence, ReplicaVerdict
from aclcmp.orchestrator.core.plan import GapKind, Plan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.text import ranks_text
from aclcmp.orchestrator.core.verdicts import (
    WRONG,
    Coverage,
    FirstDivergence,
    Judgement,
    LabelVerdict,
    Limits,
    Origin,
    RankVerdict,
    Status,
    verdicts_on,
    worst,
)
from aclcmp.orchestrator.core.weights import WeightReport
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.excuses import apply_allow_rules, apply_ignore_rules
from aclcmp.orchestrator.judge.growth import raise_jumps
from aclcmp.orchestrator.judge.limits import Depths, LabelLimits, Scales
from aclcmp.orchestrator.judge.origins import assign_origins
from aclcmp.orchestrator.judge.own_errors import (
    Measured,
    OwnVerdicts,
    apply_own_errors,
    judge_own_errors,
    limits_of_own,
)
from aclcmp.orchestrator.judge.pair_status import judge_pair, status_and_margin
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.judge.precision import Precisions
from aclcmp.orchestrator.judge.replica_verdicts import apply_replicas
from aclcmp.orchestrator.judge.token_verdicts import judge_tokens, let_behind_ties
from aclcmp.orchestrator.judge.wrong_weights import explained_labels, settle_doubts, with_doubts

_GAP_STATUS = {
    GapKind.MISSING_GOLDEN: Status.MISSING,
    GapKind.MISSING_ACTUAL: Status.MISSING,
    GapKind.MISMATCH: Status.MISMATCH,
    GapKind.FAILED: Status.FAILED,
}
_NAMES = {
    ExitCode.MATCH: "match",
    ExitCode.DIVERGED: "diverged",
    ExitCode.FAILED: "failed",
    ExitCode.INCOMPLETE: "incomplete",
}
_DEFAULT = Policy()


def judge(
    plan: Plan,
    outcomes: Outcomes,
    *,
    run_failed: bool,
    replicas: Sequence[ReplicaVerdict] = (),
    policy: Policy = _DEFAULT,
) -> Judgement:
    """Judge every (label, rank) of a plan by the outcomes of comparing it.

    `run_failed`: a rank failed, whatever was compared. `replicas` are those that differ between ranks.
    """
    return judge_evidence(collect_evidence(plan, outcomes, run_failed=run_failed, replicas=replicas), policy)


def judge_evidence(evidence: Evidence, policy: Policy = _DEFAULT) -> Judgement:
    """Judge every (label, rank) of which there is evidence."""
    with without_collection():
        return _judge_labels(evidence, policy)


def _judge_labels(evidence: Evidence, policy: Policy) -> Judgement:
    levels = {label.key: label.level for label in evidence.labels}
    depths, scales, precisions = Depths(), Scales(), Precisions(evidence.labels)
    if evidence.independent:
        policy = replace(policy, jump=replace(policy.jump, on=False))
    judged = []
    measured: list[Measured] = []
    for label in evidence.labels:
        if evidence.independent:
            depths, scales, precisions = Depths(), Scales(), Precisions((label,))
        scale = scales.of(label)
        limits = LabelLimits(label, depths.of(label), policy, precisions, scale)
        ranks = _judge_ranks(label, limits)
        measured += limits_of_own(label, ranks, LabelLimits(label, 0, policy, precisions, scale))
        precisions.take(label, ranks)
        scales.take(label, ranks)
        if policy.ignore:
            ranks = [apply_ignore_rules(each, label.key, label.level, policy) for each in ranks]
        judged.append((label.key, ranks))
    own = judge_own_errors(measured)
    with_jumps = raise_jumps(judged, levels, policy.jump)
    known = apply_replicas(apply_own_errors(judged, with_jumps, own) if own else with_jumps, evidence.replicas)
    rows, tokens = judge_tokens(known.labels, evidence.tokens)
    labels = [
        LabelVerdict(key, worst([each.status for each in ranks] or [Status.MATCH]), tuple(ranks), levels[key])
        for key, ranks in rows
    ]
    if evidence.independent:
        found = [assign_origins([each], policy.own_factor, policy.jump)[0] for each in labels]
        labels, weights = apply_allow_rules(found, policy), evidence.weights
    else:
        labels, weights = _explain(labels, with_doubts(evidence.weights), policy, _wrong_by_itself(own))
    coverage = _coverage(labels, evidence, known.untold)
    first = _wrong_weight(weights) or _first_divergence(labels, policy.fail_on)
    drift = policy.fail_on is FailOn.DRIFT and any(_drifts(verdict) for each in labels for verdict in each.ranks)
    code = _exit_code(evidence.run_failed, first is not None or drift, coverage.complete)
    by_rank = _first_by_rank(labels, policy.fail_on)
    tied = let_behind_ties(tokens, labels)
    return Judgement(_NAMES[code], code, first, by_rank, tuple(labels), coverage, known.replicas, weights, tied)


def _explain(
    labels: Sequence[LabelVerdict],
    weights: WeightReport | None,
    policy: Policy,
    measured: Mapping[tuple[LabelKey, int], bool],
) -> tuple[list[LabelVerdict], WeightReport | None]:
    """Assign origins and excuses, with the weights that are wrong.

    Doubtful ones are if their labels are wrong by themselves, and nothing excuses that.
    """
    names = {label.key.label for label in labels}
    while True:
        explained = explained_labels(weights, names)
        found = assign_origins(labels, policy.own_factor, policy.jump, measured, explained)
        found = apply_allow_rules(found, policy)
        settled = settle_doubts(weights, found)
        if settled == weights:
            return found, weights
        weights = settled


def _wrong_weight(weights: WeightReport | None) -> FirstDivergence | None:
    if weights is None or not weights.wrong:
        return None
    first = weights.wrong[0]
    return FirstDivergence(LabelKey(0, first.parameter, 0), first.ranks, Origin.OWN, first.words, "", of_weight=True)


def _wrong_by_itself(own: OwnVerdicts) -> dict[tuple[LabelKey, int], bool]:
    """Return whether each (label, rank) is, where that was measured."""
    return {name: found.status in WRONG for name, found in own.items()}


def _judge_ranks(label: LabelEvidence, limits_of: LabelLimits) -> list[RankVerdict]:
    """Judge each rank's errors by their limits."""
    ranks = label.ranks
    levels = [_level(evidence, limits_of) for evidence in ranks]
    values = zip(*levels, strict=True) if levels else [()] * 5
    columns = dict(zip(("status", "reason", "bitwise", "limits", "margin"), values, strict=True))
    return verdicts_on(ranks, {**columns, "origin": repeat(None), "excused": repeat(""), "ignored": repeat(False)})


_Level = tuple[Status, str | Callable[[RankVerdict], str], bool, Limits | None, float | None]


def _level(evidence: RankEvidence, limits_of: LabelLimits) -> _Level:
    """Return status, reason, bitwise, limits and margin."""
    stats, metrics = evidence.stats, evidence.metrics
    if stats is None or metrics is None:
        status = _GAP_STATUS[evidence.gap or GapKind.FAILED]
        return status, _of_sum(evidence, evidence.gap_reason), False, None, None
    limits = limits_of(evidence)
    status, margin = status_and_margin(stats, metrics, limits, evidence.ties)
    if evidence.uncovered and status in (Status.MATCH, Status.DRIFT):
        status = Status.MISSING
    if evidence.gap is GapKind.MISMATCH:
        return Status.MISMATCH, _of_common_part, False, limits, None
    golden, actual = evidence.dtypes
    return status, _reason, golden == actual and stats.n_equal == stats.n, limits, margin


def _reason(verdict: RankVerdict) -> str:
    """Return the reason of a verdict by its limits alone, before other labels count."""
    assert verdict.stats is not None and verdict.metrics is not None and verdict.limits is not None
    status, _, words = judge_pair(verdict.stats, verdict.metrics, verdict.limits, verdict.ties, verdict.worst_row_name)
    if verdict.uncovered and status in (Status.MATCH, Status.DRIFT):
        words = f"{verdict.uncovered}; the rest: {words}"
    return _of_sum(verdict, words)


def _of_common_part(verdict: RankVerdict) -> str:
    """Say how the shapes of both sides differ, and whether the part that both have agrees."""
    assert verdict.stats is not None and verdict.metrics is not None and verdict.limits is not None
    status, _, words = judge_pair(verdict.stats, verdict.metrics, verdict.limits, verdict.ties)
    if status is Status.MATCH:
        exactly = " bit by bit" if verdict.stats.n_equal == verdict.stats.n else ""
        return f"{verdict.gap_reason} agree{exactly}"
    return f"{verdict.gap_reason} differ: {words}"


def _of_sum(evidence: RankEvidence, reason: str) -> str:
    if not evidence.summed:
        return reason
    if len(set(evidence.summed)) < len(evidence.summed):  # several labels of a rank
        return f"the sum of {len(evidence.summed)} tensors: {reason}"
    return f"the sum over {ranks_text(list(evidence.summed))}: {reason}"


def _counts(verdict: RankVerdict, fail_on: FailOn) -> bool:
    """Tell whether a verdict is a divergence that the policy does not let pass."""
    wrong = verdict.status in WRONG and not verdict.excused
    return wrong and (fail_on is not FailOn.OWN or verdict.origin is Origin.OWN)


def _drifts(verdict: RankVerdict) -> bool:
    return verdict.status is Status.DRIFT and not verdict.excused


def _exit_code(run_failed: bool, diverged: bool, complete: bool) -> ExitCode:
    if run_failed:
        return ExitCode.FAILED
    if diverged:
        return ExitCode.DIVERGED
    return ExitCode.MATCH if complete else ExitCode.INCOMPLETE


def _first_divergence(labels: Sequence[LabelVerdict], fail_on: FailOn) -> FirstDivergence | None:
    for label in labels:
        wrong = label.status in WRONG and [verdict for verdict in label.ranks if _counts(verdict, fail_on)]
        if wrong:
            largest = max(wrong, key=lambda verdict: verdict.margin or float("inf"))
            side = largest.actual or largest.golden
            own = any(verdict.origin is Origin.OWN for verdict in wrong)
            return FirstDivergence(
                key=label.key,
                ranks=tuple(verdict.rank for verdict in wrong),
                origin=Origin.OWN if own else Origin.INHERITED,
                why=largest.reason,
                call_site=side.call_site if side else "",
            )
    return None


def _first_by_rank(labels: Sequence[LabelVerdict], fail_on: FailOn) -> dict[int, LabelKey]:
    first: dict[int, LabelKey] = {}
    for label in labels:
        for verdict in label.ranks if label.status is not Status.MATCH else ():
            if _counts(verdict, fail_on):
                first.setdefault(verdict.rank, label.key)
    return dict(sorted(first.items()))


def _coverage(labels: Sequence[LabelVerdict], evidence: Evidence, replicas: int) -> Coverage:
    """Count verdicts; `replicas` is the number of differing replicas of which no verdict tells."""
    counts = Counter(_coverage_field(verdict) for label in labels for verdict in label.ranks)
    return Coverage(
        compared=counts["compared"],
        missing_golden=counts[GapKind.MISSING_GOLDEN.value],
        missing_actual=counts[GapKind.MISSING_ACTUAL.value],
        mismatch=counts[GapKind.MISMATCH.value],
        failed=counts[GapKind.FAILED.value],
        uncovered=counts["uncovered"],
        replicas=replicas,
        unreadable=evidence.unreadable,
        silent_ranks=evidence.silent_ranks,
        ignored=counts["ignored"],
    )


def _coverage_field(verdict: RankVerdict) -> str:
    if verdict.ignored:
        return "ignored"
    if verdict.gap is not None:
        return verdict.gap.value
    if verdict.status is Status.FAILED:
        return GapKind.FAILED.value
    return "uncovered" if verdict.uncovered else "compared"

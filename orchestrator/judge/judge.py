"""From statistics to verdicts: pure, so that a verdict can be taken again without the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from aclcmp.orchestrator.compare.metrics import metrics_of
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.replicas import with_replicas
from aclcmp.orchestrator.judge.table import limits_of
from aclcmp.orchestrator.judge.verdicts import (
    WRONG,
    Coverage,
    FirstDivergence,
    Judgement,
    LabelVerdict,
    Origin,
    RankVerdict,
    ReplicaVerdict,
    Status,
    worst,
)
from aclcmp.orchestrator.judge.weigh import weigh
from aclcmp.orchestrator.plan.levels import Level
from aclcmp.orchestrator.plan.model import Gap, GapKind, Plan, Sides
from aclcmp.orchestrator.plan.readings import ranks_text
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

Outcome = PairStats | str
"""What came of comparing a pair: its statistics, or why it could not be read."""

_GAP_STATUS = {
    GapKind.MISSING_GOLDEN: Status.MISSING,
    GapKind.MISSING_ACTUAL: Status.MISSING,
    GapKind.MISMATCH: Status.MISMATCH,
    GapKind.FAILED: Status.FAILED,
}


def judge(
    plan: Plan,
    outcomes: Mapping[tuple[LabelKey, int], Outcome],
    *,
    run_failed: bool,
    replicas: Sequence[ReplicaVerdict] = (),
) -> Judgement:
    """Judge every (label, rank) of the plan.

    `run_failed` says that a rank failed, whatever was compared; `replicas` are those that differ between ranks.
    """
    labels = []
    unread = partly = compared = 0
    for planned in plan.labels:
        ranks = [_gap_verdict(gap, planned.sides[gap.rank]) for gap in planned.gaps]
        for rank, (pair, *_) in groupby(planned.pairs, lambda pair: pair.rank):
            outcome = outcomes.get((planned.key, rank), "was not compared")
            verdict = _pair_verdict(pair, planned.sides[rank], outcome)
            of_sum = [source.rank for source in pair.more_actual]
            if verdict.status is Status.FAILED:
                unread += 1 + len(of_sum)
            elif rank in planned.uncovered:
                partly += 1 + len(of_sum)
                if verdict.status in (Status.MATCH, Status.DRIFT):
                    reason = f"{planned.uncovered[rank]}; the rest: {verdict.reason}"
                    verdict = replace(verdict, status=Status.MISSING, reason=reason)
            else:
                compared += 1 + len(of_sum)
            ranks += _of_all_summands(verdict, of_sum, planned.sides)
        labels.append((planned.key, ranks))
    known = with_replicas(labels, replicas)
    labels_told = _with_origins([_label(key, ranks, plan.levels[key]) for key, ranks in known.labels])
    first = _first_divergence(labels_told)
    coverage = _coverage(plan, compared, unread, partly, known.untold)
    code = _exit_code(run_failed, first is not None, coverage.complete)
    names = {
        ExitCode.MATCH: "match",
        ExitCode.DIVERGED: "diverged",
        ExitCode.FAILED: "failed",
        ExitCode.INCOMPLETE: "incomplete",
    }
    by_rank = _first_by_rank(labels_told)
    return Judgement(names[code], code, first, by_rank, tuple(labels_told), coverage, known.replicas)


def _of_all_summands(verdict: RankVerdict, others: Sequence[int], sides: Mapping[int, Sides]) -> list[RankVerdict]:
    """The verdict on a sum is that on each rank that holds a summand: which of them is wrong the sum does not tell."""
    if not others:
        return [verdict]
    named = [verdict.rank, *others]
    reason = f"the sum over {ranks_text(named)}: {verdict.reason}"
    found = []
    for rank in named:
        actual = sides[rank].actual if rank in sides else None
        facts = actual.facts if actual is not None else None
        found.append(replace(verdict, rank=rank, reason=reason, actual=facts))
    return found


def _exit_code(run_failed: bool, diverged: bool, complete: bool) -> ExitCode:
    if run_failed:
        return ExitCode.FAILED
    if diverged:
        return ExitCode.DIVERGED
    return ExitCode.MATCH if complete else ExitCode.INCOMPLETE


def _gap_verdict(gap: Gap, sides: Sides) -> RankVerdict:
    return RankVerdict(
        rank=gap.rank,
        status=_GAP_STATUS[gap.kind],
        origin=None,
        reason=gap.reason,
        bitwise=False,
        layout="",
        golden=sides.golden.facts if sides.golden else None,
        actual=sides.actual.facts if sides.actual else None,
        stats=None,
        metrics=None,
        limits=None,
        margin=None,
    )


def _pair_verdict(pair: Pair, sides: Sides, outcome: Outcome) -> RankVerdict:
    if isinstance(outcome, str):
        failed = _gap_verdict(Gap(pair.key, pair.rank, GapKind.FAILED, outcome), sides)
        return replace(failed, layout=pair.layout)
    limits = limits_of(pair.golden.dtype, pair.actual.dtype)
    metrics = metrics_of(outcome)
    status, margin, reason = weigh(outcome, metrics, limits)
    return RankVerdict(
        rank=pair.rank,
        status=status,
        origin=None,
        reason=reason,
        bitwise=outcome.n_equal == outcome.n and pair.golden.dtype == pair.actual.dtype,
        layout=pair.layout,
        golden=sides.golden.facts if sides.golden else None,
        actual=sides.actual.facts if sides.actual else None,
        stats=outcome,
        metrics=metrics,
        limits=limits,
        margin=margin,
    )


def _label(key: LabelKey, ranks: list[RankVerdict], level: Level) -> LabelVerdict:
    status = worst([verdict.status for verdict in ranks] or [Status.MATCH])
    return LabelVerdict(key, status, tuple(sorted(ranks, key=lambda verdict: verdict.rank)), level)


def _with_origins(labels: list[LabelVerdict]) -> list[LabelVerdict]:
    """Tell own from inherited: within a task, what follows the first wrong label in golden order inherits from it.

    Ranks exchange data in collectives, so a label inherits also from other ranks; a task starts afresh.
    """
    wrong_tasks: set[int] = set()
    told: list[LabelVerdict] = []
    for label in labels:
        origin = Origin.INHERITED if label.key.task in wrong_tasks else Origin.OWN
        ranks = tuple(replace(r, origin=origin) if r.status in WRONG else r for r in label.ranks)
        if any(r.status in WRONG for r in ranks):
            wrong_tasks.add(label.key.task)
        told.append(replace(label, ranks=ranks))
    return told


def _first_divergence(labels: list[LabelVerdict]) -> FirstDivergence | None:
    for label in labels:
        wrong = [verdict for verdict in label.ranks if verdict.status in WRONG]
        if wrong:
            largest = max(wrong, key=lambda verdict: verdict.margin or float("inf"))
            side = largest.actual or largest.golden
            return FirstDivergence(
                key=label.key,
                ranks=tuple(verdict.rank for verdict in wrong),
                origin=Origin.OWN,
                why=largest.reason,
                call_site=side.call_site if side else "",
            )
    return None


def _first_by_rank(labels: list[LabelVerdict]) -> dict[int, LabelKey]:
    first: dict[int, LabelKey] = {}
    for label in labels:
        for verdict in label.ranks:
            if verdict.status in WRONG:
                first.setdefault(verdict.rank, label.key)
    return dict(sorted(first.items()))


def _coverage(plan: Plan, compared: int, unread: int, partly: int, replicas: int) -> Coverage:
    """`unread` could not be compared after all, `partly` only in part; `replicas` differ and no verdict says so."""
    kinds = Counter(gap.kind for gap in plan.gaps)
    return Coverage(
        compared=compared,
        missing_golden=kinds[GapKind.MISSING_GOLDEN],
        missing_actual=kinds[GapKind.MISSING_ACTUAL],
        mismatch=kinds[GapKind.MISMATCH],
        failed=kinds[GapKind.FAILED] + unread,
        uncovered=partly,
        replicas=replicas,
        unreadable=plan.unreadable,
        silent_ranks=plan.silent_ranks,
    )

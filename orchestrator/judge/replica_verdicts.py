"""Verdicts on replicas: ranks of one side ought to hold the same, and some of them do not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aclcmp.orchestrator.core.evidence import ReplicaVerdict
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.plan import Replicas
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import WRONG, Origin, RankVerdict, Status, changed
from aclcmp.orchestrator.judge.dtype_limits import limits_of
from aclcmp.orchestrator.judge.pair_status import judge_pair

_MOST_NAMED = 8
_RAISED = (Status.MATCH, Status.DRIFT, Status.MISSING)
"""Statuses that become `diverged` where the rank's replica differs."""

Found = Mapping[int, PairStats | str]
"""By the rank that is compared with the reference."""


def judge_replicas(replicas: Replicas, found: Sequence[Found]) -> ReplicaVerdict | None:
    """Say which ranks differ beyond the limit from those that agree; None if none does.

    `found` are the outcomes of the pairs of each of `replicas.against`. Of two references the one with which more ranks
    agree counts; where half of the ranks agree with none, it is not known which are odd, and all but the first are.
    """
    views = [_view(replicas, number, results) for number, results in enumerate(found)]
    best = max(views, key=lambda view: len(view.agreeing))
    return best if best.odd or best.unread else None


def _view(replicas: Replicas, number: int, found: Found) -> ReplicaVerdict:
    """Return which ranks agree with the reference of this number, and which do not."""
    pairs = {pair.rank: pair for pair in replicas.against[number]}
    agreeing: list[int] = []
    odd: list[int] = []
    unread: list[int] = []
    largest = 0.0
    for cluster in replicas.clusters:
        pair = pairs.get(cluster[0])
        stats = found.get(cluster[0])
        if cluster is replicas.clusters[number]:
            agreeing += cluster
        elif pair is None:  # of another shape, or values of another kind
            odd += cluster
            largest = math.inf
        elif not isinstance(stats, PairStats):
            unread += cluster
        else:
            metrics = metrics_of(stats)
            status, _, _ = judge_pair(stats, metrics, limits_of(pair.golden.dtype, pair.actual.dtype))
            good = status in (Status.MATCH, Status.DRIFT)
            (agreeing if good else odd).extend(cluster)
            largest = largest if good else max(largest, metrics.rel_l2)
    verdict = ReplicaVerdict(
        replicas.key,
        replicas.side,
        replicas.declared,
        tuple(sorted(odd)),
        tuple(sorted(agreeing)),
        largest,
        "",
        tuple(sorted(unread)),
        replicas.own_ranks,
    )
    return replace(verdict, reason=_reason(verdict))


def _reason(verdict: ReplicaVerdict) -> str:
    if not verdict.odd:
        return f"the {verdict.side} replica of {_ranks(verdict.unread)} was not compared with that of the others"
    what = f"relative L2 up to {verdict.rel_l2:.2g}" if verdict.rel_l2 else "not the same values"
    return f"the {verdict.side} replica differs from that of {_ranks(verdict.agreeing)}: {what}"


@dataclass(frozen=True, slots=True)
class JudgedReplicas:
    """Labels with verdicts that count replicas, the replicas, and how many odd or unread ranks no verdict tells of."""

    labels: list[tuple[LabelKey, list[RankVerdict]]]
    replicas: tuple[ReplicaVerdict, ...]
    untold: int


def apply_replicas(
    labels: Sequence[tuple[LabelKey, list[RankVerdict]]], replicas: Sequence[ReplicaVerdict]
) -> JudgedReplicas:
    """Mark verdicts as `diverged` on ranks whose replicas differ, and decide anew which ranks are odd.

    Where some of them are wrong beside golden, those are the odd ones and no others are. Where as many ranks differ as
    agree, none is known to be right.
    """
    by_key: dict[LabelKey, list[ReplicaVerdict]] = defaultdict(list)
    for each in replicas:
        by_key[each.key].append(each)
    found = []
    judged_replicas = []
    untold = 0
    for key, ranks in labels:
        for replica in by_key.get(key, ()):
            differing = {*replica.odd, *replica.agreeing}
            wrong = tuple(v.rank for v in ranks if v.rank in differing and v.status in WRONG)
            right = tuple(sorted(differing - set(wrong)))
            if replica.own_ranks and wrong and right and replica.side == "actual":
                replica = replace(replica, odd=wrong, agreeing=right)
                replica = replace(replica, reason=_reason(replica))
            judged_replicas.append(replica)
            if replica.own_ranks:
                unknown = not wrong and len(replica.odd) >= len(replica.agreeing)
                raised = differing if unknown else set(replica.odd)
                ranks = [_raise_status(v, replica, raise_it=not wrong) if v.rank in raised else v for v in ranks]
            if replica.declared and not (ranks and all(v.ignored for v in ranks)):
                tells = {v.rank for v in ranks if v.status in WRONG} if replica.own_ranks else set()
                untold += len(set(replica.odd) - tells) + len(replica.unread)
        found.append((key, ranks))
    return JudgedReplicas(found, tuple(judged_replicas), untold)


def _raise_status(verdict: RankVerdict, replica: ReplicaVerdict, *, raise_it: bool) -> RankVerdict:
    if raise_it and replica.declared and verdict.status in _RAISED:
        return changed(verdict, status=Status.DIVERGED, origin=Origin.OWN, reason=f"{replica.reason}; {verdict.reason}")
    return changed(verdict, reason=f"{verdict.reason}; {replica.reason}")


def _ranks(ranks: Sequence[int]) -> str:
    named = ", ".join(map(str, ranks[:_MOST_NAMED])) + (
        f" ... ({len(ranks)} ranks)" if len(ranks) > _MOST_NAMED else ""
    )
    return f"rank{'s' * (len(ranks) > 1)} {named}"

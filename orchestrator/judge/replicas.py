"""What ranks of one side hold that ought to be the same: which of them is the odd one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aclcmp.orchestrator.compare.metrics import metrics_of
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.table import limits_of
from aclcmp.orchestrator.judge.verdicts import WRONG, Origin, RankVerdict, ReplicaVerdict, Status
from aclcmp.orchestrator.judge.weigh import weigh
from aclcmp.orchestrator.plan.model import Replicas
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

_MOST_NAMED = 8
_RAISED = (Status.MATCH, Status.DRIFT, Status.MISSING)
"""What a rank's status is no more where its replica is another."""

Found = Mapping[int, PairStats | str]
"""By the rank that is held against the reference."""


def judge_replicas(replicas: Replicas, found: Sequence[Found]) -> ReplicaVerdict | None:
    """Say which ranks differ beyond the limit from those that agree; None if none does.

    `found` are what came of the pairs of each of `replicas.against`. Of two references that counts with which more
    ranks agree; where half of them agree with none, which are odd is not known, and all others than the first are told.
    """
    views = [_view(replicas, pairs, results) for pairs, results in zip(replicas.against, found, strict=True)]
    agreeing, odd, rel_l2 = max(views, key=lambda view: len(view[0]))
    return _verdict(replicas, agreeing, odd, rel_l2) if odd else None


def _verdict(
    replicas: Replicas | ReplicaVerdict, agreeing: tuple[int, ...], odd: tuple[int, ...], rel_l2: float
) -> ReplicaVerdict:
    what = f"relative L2 up to {rel_l2:.2g}" if rel_l2 else "not the same values"
    reason = f"the {replicas.side} replica differs from that of {_ranks(agreeing)}: {what}"
    return ReplicaVerdict(replicas.key, replicas.side, replicas.told, odd, agreeing, rel_l2, reason)


def _view(replicas: Replicas, pairs: Sequence[Pair], found: Found) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Ranks that agree with one reference, those that do not, and the largest error."""
    clusters = {cluster[0]: cluster for cluster in replicas.clusters}
    compared = {pair.rank for pair in pairs}
    agreeing = [rank for first, cluster in clusters.items() if first not in compared for rank in cluster]
    odd: list[int] = []
    largest = 0.0
    for pair in pairs:
        stats = found.get(pair.rank)
        if not isinstance(stats, PairStats):
            continue  # it could not be read: its own comparison says so
        metrics = metrics_of(stats)
        status, _, _ = weigh(stats, metrics, limits_of(pair.golden.dtype, pair.actual.dtype))
        if status in (Status.MATCH, Status.DRIFT):
            agreeing += clusters[pair.rank]
        else:
            odd += clusters[pair.rank]
            largest = max(largest, metrics.rel_l2)
    return tuple(sorted(agreeing)), tuple(sorted(odd)), largest


def with_replicas(
    labels: Sequence[tuple[LabelKey, list[RankVerdict]]], replicas: Sequence[ReplicaVerdict]
) -> tuple[list[tuple[LabelKey, list[RankVerdict]]], list[ReplicaVerdict]]:
    """Make `diverged` what seems to be in order on ranks whose replicas differ, and say again which are odd.

    Where some of them are wrong beside golden, those are the odd ones and no other is. Of as many ranks that differ as
    agree none is known to be right.
    """
    by_key: dict[LabelKey, list[ReplicaVerdict]] = defaultdict(list)
    for each in replicas:
        by_key[each.key].append(each)
    found = []
    told = []
    for key, ranks in labels:
        for replica in by_key.get(key, ()):
            differing = {*replica.odd, *replica.agreeing}
            wrong = tuple(v.rank for v in ranks if v.rank in differing and v.status in WRONG)
            right = tuple(sorted(differing - set(wrong)))
            if wrong and right and replica.side == "actual":
                replica = _verdict(replica, right, wrong, replica.rel_l2)
            told.append(replica)
            unknown = not wrong and len(replica.odd) >= len(replica.agreeing)
            raised = differing if unknown else set(replica.odd)
            ranks = [_raised(v, replica, raise_it=not wrong) if v.rank in raised else v for v in ranks]
        found.append((key, ranks))
    return found, told


def _raised(verdict: RankVerdict, replica: ReplicaVerdict, *, raise_it: bool) -> RankVerdict:
    if raise_it and replica.told and verdict.status in _RAISED:
        return replace(verdict, status=Status.DIVERGED, origin=Origin.OWN, reason=f"{replica.reason}; {verdict.reason}")
    return replace(verdict, reason=f"{verdict.reason}; {replica.reason}")


def _ranks(ranks: Sequence[int]) -> str:
    named = ", ".join(map(str, ranks[:_MOST_NAMED])) + (
        f" ... ({len(ranks)} ranks)" if len(ranks) > _MOST_NAMED else ""
    )
    return f"rank{'s' * (len(ranks) > 1)} {named}"

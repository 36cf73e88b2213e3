"""All that verdicts are taken from, as data: it is stored in report.h5, so that they can be taken again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from aclcmp.orchestrator.compare.metrics import Metrics, metrics_of
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.floors import Floor, FloorSource
from aclcmp.orchestrator.plan.levels import Level
from aclcmp.orchestrator.plan.model import Gap, GapKind, LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

if TYPE_CHECKING:
    from aclcmp.orchestrator.judge.verdicts import ReplicaVerdict

Outcome = PairStats | str
"""What came of comparing a pair: its statistics, or why it could not be read."""
Outcomes = Mapping[tuple[LabelKey, int], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEvidence:
    """What is known of one label on one rank. `stats` and `metrics` are None where nothing was compared."""

    rank: int
    golden: SideFacts | None
    actual: SideFacts | None
    layout: str = ""
    stats: PairStats | None = None
    metrics: Metrics | None = None
    dtypes: tuple[str, str] = ("", "")
    """Element types of the tensors that were compared, golden's first: not always those of this rank's own labels."""
    gap: GapKind | None = None
    """Why nothing was compared, in kind."""
    gap_reason: str = ""
    """Why nothing was compared, in words."""
    uncovered: str = ""
    """The region of the whole for which one side is absent, in words; "" where all was compared."""
    summed: tuple[int, ...] = ()
    """Ranks whose sum was compared; empty where no sum was."""
    ties: int = 0
    """How many of the values that differ are ids whose scores differ by no more than the noise."""
    floors: tuple[Floor, ...] = ()
    """Measured noise floors of the label, the best source first."""


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """One label over its ranks, which ascend."""

    key: LabelKey
    level: Level
    ranks: tuple[RankEvidence, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run, labels in golden order."""

    labels: tuple[LabelEvidence, ...]
    replicas: tuple[ReplicaVerdict, ...] = ()
    """Those that differ beyond the limits of the dtype table, or could not be compared."""
    unreadable: int = 0
    silent_ranks: tuple[int, ...] = ()
    run_failed: bool = False


def evidence_of(
    plan: Plan,
    outcomes: Outcomes,
    *,
    run_failed: bool,
    replicas: Sequence[ReplicaVerdict] = (),
) -> Evidence:
    """Put together what was planned and what came of it.

    What is known of a sum is known of each rank that holds a summand: which of them is wrong the sum does not tell.
    """
    labels = []
    for planned in plan.labels:
        ranks = [_of_gap(gap, planned.sides[gap.rank]) for gap in planned.gaps]
        for _, (pair, *_) in groupby(planned.pairs, lambda pair: pair.rank):
            ranks += _of_pair(pair, planned, outcomes)
        ranks.sort(key=lambda each: each.rank)
        labels.append(LabelEvidence(planned.key, plan.levels[planned.key], tuple(ranks)))
    return Evidence(tuple(labels), tuple(replicas), plan.unreadable, plan.silent_ranks, run_failed)


def with_floors(evidence: Evidence, floors: Mapping[LabelKey, tuple[Floor, ...]]) -> Evidence:
    """Add noise floors by label; one of a source that a label has already takes its place."""
    order = list(FloorSource)

    def added(label: LabelEvidence) -> LabelEvidence:
        if label.key not in floors:
            return label
        ranks = []
        for each in label.ranks:
            known = {floor.source: floor for floor in (*each.floors, *floors[label.key])}
            ranks.append(replace(each, floors=tuple(sorted(known.values(), key=lambda f: order.index(f.source)))))
        return replace(label, ranks=tuple(ranks))

    return replace(evidence, labels=tuple(map(added, evidence.labels)))


def _of_gap(gap: Gap, sides: Sides) -> RankEvidence:
    return RankEvidence(
        rank=gap.rank,
        golden=_facts(sides, "golden"),
        actual=_facts(sides, "actual"),
        gap=gap.kind,
        gap_reason=gap.reason,
    )


def _of_pair(pair: Pair, planned: LabelPlan, outcomes: Outcomes) -> list[RankEvidence]:
    sides = planned.sides[pair.rank]
    outcome = outcomes.get((planned.key, pair.rank), "was not compared")
    read = isinstance(outcome, PairStats)
    found = RankEvidence(
        rank=pair.rank,
        golden=_facts(sides, "golden"),
        actual=_facts(sides, "actual"),
        layout=pair.layout,
        stats=outcome if isinstance(outcome, PairStats) else None,
        metrics=metrics_of(outcome) if isinstance(outcome, PairStats) else None,
        dtypes=(pair.golden.dtype, pair.actual.dtype),
        gap=None if read else GapKind.FAILED,
        gap_reason=outcome if isinstance(outcome, str) else "",
        uncovered=planned.uncovered.get(pair.rank, ""),
    )
    others = [source.rank for source in pair.more_actual]
    if not others:
        return [found]
    summed = (pair.rank, *others)
    each = {rank: planned.sides.get(rank) for rank in summed}
    return [
        replace(found, rank=rank, summed=summed, actual=_facts(held, "actual") if held else None)
        for rank, held in each.items()
    ]


def _facts(sides: Sides, side: str) -> SideFacts | None:
    told = sides.golden if side == "golden" else sides.actual
    return told.facts if told is not None else None

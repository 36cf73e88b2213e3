"""The evidence of verdicts, from a plan and its outcomes. It is stored in report.h5, so that it can be judged again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from aclcmp.orchestrator.core.compact import bulk_construct, make_copier, make_lazy, slots_of, without_collection
from aclcmp.orchestrator.core.evidence import NOT_REACHED, Evidence, LabelEvidence, RankEvidence
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.metrics import TOGETHER, Metrics, all_metrics
from aclcmp.orchestrator.core.plan import Gap, GapKind, HasSideFacts, LabelPlan, Plan, RowNames, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcome, Outcomes, PairStats
from aclcmp.orchestrator.judge.residual_stream import ResidualStreams

if TYPE_CHECKING:
    from aclcmp.orchestrator.core.evidence import ReplicaVerdict


make_lazy(LabelEvidence, "ranks")
_SLOTS = slots_of(RankEvidence)
_copy_evidence = make_copier(RankEvidence, _SLOTS)


def collect_evidence(
    plan: Plan,
    outcomes: Outcomes,
    *,
    run_failed: bool,
    replicas: Sequence[ReplicaVerdict] = (),
) -> Evidence:
    """Put a plan and its outcomes together.

    The evidence on a sum goes to each rank that holds a summand: the sum does not tell which of them is wrong.
    """
    with without_collection():
        labels = [
            LabelEvidence(planned.key, plan.levels[planned.key], cast("tuple[RankEvidence, ...]", known))
            for planned, known in zip(plan.labels, _collect_outcomes(plan, outcomes), strict=True)
        ]
    return Evidence(
        tuple(labels),
        tuple(replicas),
        plan.unreadable,
        plan.silent_ranks,
        run_failed,
        independent=plan.independent,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _LabelOutcomes:
    """The outcomes of one label. Its evidence is made from them when asked for: that of a million labels is 136 MB."""

    planned: LabelPlan
    outcomes: tuple[Outcome, ...]
    """One for each rank that has pairs, in their order."""
    metrics: tuple[Metrics | None, ...]

    def __call__(self, _: object) -> tuple[RankEvidence, ...]:
        """Return the evidence of each rank."""
        planned, pairs = self.planned, _first_pairs(self.planned)
        sides = [planned.sides[pair.rank] for pair in pairs]
        ranks = bulk_construct(RankEvidence, _SLOTS, len(pairs), self._columns(pairs, sides))
        if any(pair.more_actual for pair in pairs):
            ranks = [each for pair, found in zip(pairs, ranks, strict=True) for each in _of_sum(pair, found, planned)]
        ranks = [*(_of_gap(gap, planned.sides[gap.rank]) for gap in planned.gaps), *ranks]
        return tuple(sorted(ranks, key=attrgetter("rank")))

    def _columns(self, pairs: Sequence[Pair], sides: Sequence[Sides]) -> dict[str, Iterable[Any]]:
        """Return the fields of `RankEvidence` as columns, one value for each rank that has pairs."""
        uncovered, unpaired, unlike = self.planned.uncovered, self.planned.unpaired, self.planned.unlike
        ranks = [pair.rank for pair in pairs]
        return {
            "rank": ranks,
            "golden": [_facts(each.golden) for each in sides],
            "actual": [_facts(each.actual) for each in sides],
            "layout": [pair.layout for pair in pairs],
            "stats": [None if isinstance(each, str) else each for each in self.outcomes],
            "metrics": self.metrics,
            "dtypes": [_dtypes(pair.golden.dtype, pair.actual.dtype) for pair in pairs],
            "gap": [
                GapKind.FAILED if isinstance(each, str) else GapKind.MISMATCH if rank in unlike else None
                for each, rank in zip(self.outcomes, ranks, strict=True)
            ],
            "gap_reason": [
                each if isinstance(each, str) else unlike.get(rank, "")
                for each, rank in zip(self.outcomes, ranks, strict=True)
            ],
            "uncovered": ["; ".join(each[rank] for each in (uncovered, unpaired) if rank in each) for rank in ranks],
            "worst_row_name": self._names_of_worst_rows(),
            "summed": repeat(()),
            "ties": repeat(0),
            "floors": repeat(()),
            "own": repeat(None),
        }

    def _names_of_worst_rows(self) -> Iterable[str]:
        rows = self.planned.names_of_rows
        if rows is None:
            return repeat("")
        return [_row_name(rows, outcome, metrics) for outcome, metrics in zip(self.outcomes, self.metrics, strict=True)]


def _row_name(rows: RowNames, outcome: Outcome, metrics: Metrics | None) -> str:
    if isinstance(outcome, str) or metrics is None or not outcome.rows.count or metrics.worst_row_index < 0:
        return ""
    first = metrics.worst_row_index * outcome.rows.group
    return rows.words(first, first + outcome.rows.group - 1)


def _collect_outcomes(plan: Plan, outcomes: Outcomes) -> list[_LabelOutcomes]:
    found = [
        tuple([outcomes.get((label.key, pair.rank), NOT_REACHED) for pair in _first_pairs(label)])
        for label in plan.labels
    ]
    compared = [each for label in found for each in label if isinstance(each, PairStats)]
    metrics: list[Metrics] = []
    for start in range(0, len(compared), TOGETHER):
        metrics += all_metrics(compared[start : start + TOGETHER])
    each_metrics = iter(metrics)
    memory = ResidualStreams()
    known = []
    for planned, outcomes_of in zip(plan.labels, found, strict=True):
        level = plan.levels[planned.key]
        if plan.independent:
            memory = ResidualStreams()
        ranks = [pair.rank for pair in _first_pairs(planned)]
        with_memory = [
            memory.of(planned.key, level, rank, one, next(each_metrics)) if isinstance(one, PairStats) else None
            for rank, one in zip(ranks, outcomes_of, strict=True)
        ]
        known.append(_LabelOutcomes(planned, outcomes_of, tuple(with_memory)))
    return known


def _first_pairs(planned: LabelPlan) -> list[Pair]:
    """Return the first pair of each rank."""
    return [next(pairs) for _, pairs in groupby(planned.pairs, attrgetter("rank"))]


def add_floors(evidence: Evidence, floors: Mapping[LabelKey, tuple[Floor, ...]]) -> Evidence:
    """Add noise floors by label; a floor replaces one of the same source."""
    labels = [
        LabelEvidence(
            each.key, each.level, cast("tuple[RankEvidence, ...]", _EvidenceWithFloors(each, floors[each.key]))
        )
        if each.key in floors
        else each
        for each in evidence.labels
    ]
    return replace(evidence, labels=tuple(labels))


@dataclass(frozen=True, slots=True, eq=False)
class _EvidenceWithFloors:
    """A label's evidence with further floors, made each time it is asked for."""

    label: LabelEvidence
    floors: tuple[Floor, ...]

    def __call__(self, _: object) -> tuple[RankEvidence, ...]:
        """Return the evidence of each rank."""
        ranks = self.label.ranks
        together = {known: self._merge(known) for known in {each.floors for each in ranks}}
        return tuple([_copy_evidence(each, floors=together[each.floors]) for each in ranks])

    def _merge(self, known: tuple[Floor, ...]) -> tuple[Floor, ...]:
        by_source = {floor.source: floor for floor in (*known, *self.floors)}
        return tuple(by_source[source] for source in FloorSource if source in by_source)


def _of_gap(gap: Gap, sides: Sides) -> RankEvidence:
    return RankEvidence(
        rank=gap.rank,
        golden=_facts(sides.golden),
        actual=_facts(sides.actual),
        gap=gap.kind,
        gap_reason=gap.reason,
    )


def _of_sum(pair: Pair, found: RankEvidence, planned: LabelPlan) -> list[RankEvidence]:
    """Return the evidence on a sum for each rank that holds a summand; evidence on a single tensor stays as it is."""
    others = [source.rank for source in pair.more_actual]
    if not others:
        return [found]
    summed = (pair.rank, *others)
    each = {rank: planned.sides.get(rank) for rank in summed}
    return [
        replace(found, rank=rank, summed=summed, actual=_facts(side.actual) if side else None)
        for rank, side in each.items()
    ]


def _facts(side: HasSideFacts | None) -> SideFacts | None:
    return side.facts if side is not None else None


@cache
def _dtypes(golden: str, actual: str) -> tuple[str, str]:
    return golden, actual

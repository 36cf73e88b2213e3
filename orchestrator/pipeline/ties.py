"""Which ids that differ may be ties, and beside which scores. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from aclcmp.orchestrator.compare.tie_check import are_ids, is_scores, is_whole_pair, scores_fit
from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.evidence import Evidence
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.verdicts import Judgement, LabelVerdict, RankVerdict, Status

MOST_QUESTIONS = 256
_LOOK_BACK = 8
"""Labels before the ids among which their scores are looked for, where the ids name no inputs."""

Name = tuple[LabelKey, int]


def tie_questions(plan: Plan, judgement: Judgement) -> list[TieQuestion]:
    """Return what to ask of integers that diverged: the ids of a rank beside the scores that they are places of.

    The scores are an input that the ids name, else the nearest label before them, that matches or drifts on the rank
    and whose shape fits.
    """
    pairs = _single_pairs(plan)
    found: list[TieQuestion] = []
    for place, label in enumerate(judgement.labels):
        for verdict in label.ranks:
            ids = pairs.get((label.key, verdict.rank))
            if ids is None or verdict.status is not Status.DIVERGED:
                continue
            if not (are_ids(ids.golden) and is_whole_pair(ids)):
                continue
            for scores in _candidates(judgement.labels, place, verdict):
                pair = pairs.get((scores.key, verdict.rank))
                beside = next((each for each in scores.ranks if each.rank == verdict.rank), None)
                if pair is not None and beside is not None and _fits(ids, pair, beside):
                    assert beside.stats is not None
                    found.append(TieQuestion(ids, pair.golden, beside.stats.max_abs_d))
                    break
    return found[:MOST_QUESTIONS]


def add_ties(evidence: Evidence, ties: Mapping[Name, int]) -> Evidence:
    """Say of each (label, rank) how many of its differing values are ties."""
    labels = []
    for label in evidence.labels:
        ranks = tuple(
            replace(each, ties=ties[label.key, each.rank]) if ties.get((label.key, each.rank)) else each
            for each in label.ranks
        )
        labels.append(replace(label, ranks=ranks))
    return replace(evidence, labels=tuple(labels))


def _single_pairs(plan: Plan) -> dict[Name, Pair]:
    found = {}
    for label in plan.labels:
        for rank, group in groupby(label.pairs, lambda pair: pair.rank):
            first, *others = group
            if not others:
                found[label.key, rank] = first
    return found


def _candidates(labels: Sequence[LabelVerdict], place: int, verdict: RankVerdict) -> list[LabelVerdict]:
    """Labels that may hold the scores, the likeliest first."""
    task = labels[place].key.task
    before = [label for label in reversed(labels[:place]) if label.key.task == task]
    named = {name for side in (verdict.golden, verdict.actual) if side is not None for name in side.inputs}
    return [label for label in before if label.key.label in named] if named else before[:_LOOK_BACK]


def _fits(ids: Pair, scores: Pair, beside: RankVerdict) -> bool:
    right = beside.status in (Status.MATCH, Status.DRIFT) and beside.stats is not None
    here = scores.golden.rank == ids.golden.rank and is_scores(scores.golden)
    return right and here and scores_fit(ids.whole_shape, scores.golden.shape)

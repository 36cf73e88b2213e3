"""Ids that differ and may be ties, and the scores that tell it. Pure."""

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
"""Labels before the ids that may hold their scores, where the ids name no inputs."""

Name = tuple[LabelKey, int]


def tie_questions(plan: Plan, judgement: Judgement) -> list[TieQuestion]:
    """Return questions about integers that diverged: the ids of a rank beside the scores from which they were chosen.

    The scores are an input that the ids name, else the nearest label before them, that matches or drifts on the rank
    and whose shape fits.
    """
    pairs = _single_pairs(plan)
    questions: list[TieQuestion] = []
    for place, label in enumerate(judgement.labels):
        for verdict in label.ranks:
            ids = pairs.get((label.key, verdict.rank))
            if ids is None or verdict.status is not Status.DIVERGED:
                continue
            if are_ids(ids.golden) and is_whole_pair(ids):
                candidates = _score_candidates(judgement.labels, place, verdict)
                questions += _ask_about(ids, candidates, pairs)
    return questions[:MOST_QUESTIONS]


def _ask_about(ids: Pair, candidates: Sequence[LabelVerdict], pairs: Mapping[Name, Pair]) -> list[TieQuestion]:
    """Return the question about ids beside the first of the candidates that may be their scores, if there is one."""
    for label in candidates:
        scores = pairs.get((label.key, ids.rank))
        verdict = next((each for each in label.ranks if each.rank == ids.rank), None)
        if scores is not None and verdict is not None and verdict.stats is not None and _fits(ids, scores, verdict):
            return [TieQuestion(ids, scores.golden, verdict.stats.max_abs_d)]
    return []


def add_ties(evidence: Evidence, ties: Mapping[Name, int]) -> Evidence:
    """Return the evidence with the number of ties among the differing values of each (label, rank)."""
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


def _score_candidates(labels: Sequence[LabelVerdict], place: int, verdict: RankVerdict) -> list[LabelVerdict]:
    """Return the labels that may hold the scores of ids, the likeliest first."""
    task = labels[place].key.task
    before = [label for label in reversed(labels[:place]) if label.key.task == task]
    named = {name for side in (verdict.golden, verdict.actual) if side is not None for name in side.inputs}
    return [label for label in before if label.key.label in named] if named else before[:_LOOK_BACK]


def _fits(ids: Pair, scores: Pair, verdict: RankVerdict) -> bool:
    """Tell whether a pair may be the scores of ids; `verdict` is the one on it."""
    right = verdict.status in (Status.MATCH, Status.DRIFT)
    same_rank = scores.golden.rank == ids.golden.rank and is_scores(scores.golden)
    return right and same_rank and scores_fit(ids.whole_shape, scores.golden.shape)

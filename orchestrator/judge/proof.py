"""Which of several readings of a label its values prove."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby

from aclcmp.orchestrator.compare.metrics import metrics_of
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.table import limits_of
from aclcmp.orchestrator.judge.verdicts import Status
from aclcmp.orchestrator.judge.weigh import weigh
from aclcmp.orchestrator.plan.model import LabelPlan, Question
from aclcmp.orchestrator.plan.regions import LabelKey

Outcomes = Mapping[tuple[LabelKey, int], PairStats | str]

HOLDS = 0.5
"""Share of ranks on which a reading must hold: a fault on some ranks must not hide the layout of all."""
_NUMBER = re.compile(r"\d+")


def share_that_holds(option: LabelPlan, outcomes: Outcomes) -> float:
    """Return of how many of the ranks that it is about, from 0 to 1, the values agree if this is the layout."""
    ranks = {gap.rank for gap in option.gaps} | {pair.rank for pair in option.pairs}
    holds = 0
    for rank, (pair, *_) in groupby(option.pairs, lambda pair: pair.rank):
        stats = outcomes.get((option.key, rank))
        if isinstance(stats, PairStats) and rank not in option.uncovered:
            status, _, _ = weigh(stats, metrics_of(stats), limits_of(pair.golden.dtype, pair.actual.dtype))
            holds += status in (Status.MATCH, Status.DRIFT)
    return holds / len(ranks) if ranks else 0.0


def proved(shares: Sequence[float]) -> int | None:
    """Return the number of the one reading that holds; None if none does or several do.

    Where several hold on all ranks their values are the same wherever they lie: then any of them will do.
    """
    best = max(shares, default=0.0)
    winners = [number for number, share in enumerate(shares) if share == best]
    if best < HOLDS or (len(winners) > 1 and best < 1.0):
        return None
    return winners[0]


def answers(questions: Sequence[Question], shares: Sequence[Sequence[float]]) -> list[int | None]:
    """Answer each question by its shares; one that they leave open as all of its kind that they settle.

    Of one kind are labels whose names differ in numbers only (the same module in other layers) and that are ambiguous
    in the same way: what sound layers prove holds in a layer that is wrong on all ranks.
    """
    found = [proved(each) for each in shares]
    kinds = [_kind(question) for question in questions]
    of_kind: dict[object, set[int]] = defaultdict(set)
    for kind, answer in zip(kinds, found, strict=True):
        if answer is not None:
            of_kind[kind].add(answer)
    return [
        next(iter(of_kind[kind])) if answer is None and len(of_kind[kind]) == 1 else answer
        for kind, answer in zip(kinds, found, strict=True)
    ]


def kind_of(key: LabelKey) -> str:
    """Return what the label is in every layer: its name without numbers."""
    return _NUMBER.sub("*", key.label)


def _kind(question: Question) -> object:
    layouts = tuple(next((pair.layout for pair in option.pairs), "") for option in question.options)
    return kind_of(question.unsettled.key), layouts

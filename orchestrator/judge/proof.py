"""Which of several readings of a label its values prove."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby

from aclcmp.orchestrator.core.metrics import all_metrics
from aclcmp.orchestrator.core.plan import LabelPlan, Question
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.judge.dtype_limits import limits_of
from aclcmp.orchestrator.judge.pair_status import status_and_margin

HOLDS = 0.5
"""Share of ranks on which a reading must hold: a fault on some ranks must not hide the layout of all."""
_LAYER = re.compile(r"(?<![^./\[])\d+(?![^./\]])")
"""The number in "layers.3.mlp", "3.qkv", "h[3].attn"."""
MOSTLY = 2 / 3
"""Share of a kind's labels that are settled in one way, above which others are outliers."""


def share_that_holds(option: LabelPlan, outcomes: Outcomes) -> float | None:
    """Return of how many of the ranks that it is about, from 0 to 1, the values agree if this is the layout.

    Constant values agree wherever they lie: where others are there they do not count, and None is returned where no
    others are.
    """
    ranks = {gap.rank for gap in option.gaps} | {pair.rank for pair in option.pairs}
    holds = constant = 0
    found: list[tuple[Pair, PairStats]] = []
    for rank, (pair, *_) in groupby(option.pairs, lambda pair: pair.rank):
        stats = outcomes.get((option.key, rank))
        if isinstance(stats, PairStats) and rank not in option.uncovered:
            found.append((pair, stats))
    for (pair, stats), metrics in zip(found, all_metrics([stats for _, stats in found]), strict=True):
        status, _ = status_and_margin(stats, metrics, limits_of(pair.golden.dtype, pair.actual.dtype))
        agrees = status in (Status.MATCH, Status.DRIFT)
        holds += agrees
        constant += agrees and stats.min_x == stats.max_x
    if not ranks:
        return 0.0
    if constant == len(ranks):
        return 0.0 if option.padded else None
    if option.padded:  # padding that nobody told is proved by all values, or not at all
        return float(holds == len(ranks))
    return (holds - constant) / (len(ranks) - constant)


def proven_answer(shares: Sequence[float | None]) -> int | None:
    """Return the number of the one reading that holds; None if none does or several do.

    Where several hold on all ranks their values are the same wherever they lie: then any of them will do.
    """
    each = [1.0 if share is None else share for share in shares]
    best = max(each, default=0.0)
    winners = [number for number, share in enumerate(each) if share == best]
    if best < HOLDS or (len(winners) > 1 and best < 1.0):
        return None
    return winners[0]


def answer_questions(questions: Sequence[Question], shares: Sequence[Sequence[float | None]]) -> list[int | None]:
    """Answer each question by its shares; one that they leave open, or answer unlike most of its kind, as its kind is.

    Of one kind are labels whose names differ in the number of the layer only and that are ambiguous in the same way:
    what sound layers prove holds in a layer that is wrong. Where a question is another look at what seemed clear, an
    answer must hold on more than half of the ranks somewhere.
    """
    found = [proven_answer(each) for each in shares]
    of_kind: dict[object, Counter[int]] = defaultdict(Counter)
    most_ranks: dict[object, set[int]] = defaultdict(set)
    kinds = [_kind(question) for question in questions]
    for kind, answer, each in zip(kinds, found, shares, strict=True):
        if answer is not None and any(share is not None for share in each):
            of_kind[kind][answer] += 1
            most_ranks[kind] |= {number for number, share in enumerate(each) if share is not None and share > HOLDS}
    told: list[int | None] = []
    for question, kind, answer, each in zip(questions, kinds, found, shares, strict=True):
        if of_kind[kind]:
            most, count = of_kind[kind].most_common(1)[0]
            clear = count > MOSTLY * of_kind[kind].total() or len(of_kind[kind]) == 1
            if clear and (answer is None or (answer != most and each[answer] is not None)):
                answer = most
        if answer is not None and question.unsettled.pairs and answer not in most_ranks[kind]:
            answer = None
        told.append(answer)
    return told


def agrees_otherwise(shares: Sequence[float | None], answer: int) -> int | None:
    """Return the reading under which all values of a label agree where its kind has another one, its answer."""
    own = shares[answer]
    return next((number for number, share in enumerate(shares) if share == 1.0 and own is not None and own < 1.0), None)


def kind_of(key: LabelKey) -> str:
    """Return what the label is in every layer: its name without the layer's number."""
    return _LAYER.sub("*", key.label, count=1)


def _kind(question: Question) -> object:
    layouts = tuple(next((pair.layout for pair in option.pairs), "") for option in question.options)
    return kind_of(question.unsettled.key), layouts

"""The proof by values: which of several layouts of a label holds."""

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
"""Share of ranks on which a layout must hold: a fault on some ranks must not hide the layout of all."""
_LAYER = re.compile(r"(?<![^./\[])\d+(?![^./\]])")
"""The number in "layers.3.mlp", "3.qkv", "h[3].attn"."""
_LEAST_SUMS = 2
"""Layers in which a sum that no layout tells must hold."""
MOSTLY = 2 / 3
"""Share of a kind's labels with the same answer, above which others are outliers."""


def share_that_holds(option: LabelPlan, outcomes: Outcomes) -> float | None:
    """Return the share of an option's ranks, from 0 to 1, on which the values agree under its layout.

    Constant values agree wherever they lie: they do not count beside others, and where all are constant the share is
    None, or 0 for an option that needs a proof.
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
        return 0.0 if option.padded or option.needs_proof else None
    if option.padded:  # padding that no layout declares is proved by all values, or not at all
        return float(holds == len(ranks))
    return (holds - constant) / (len(ranks) - constant)


def proven_answer(shares: Sequence[float | None]) -> int | None:
    """Return the number of the one option that holds; None if none does or several do.

    Where several hold on all ranks their values are the same wherever they lie: then any of them will do.
    """
    each = [1.0 if share is None else share for share in shares]
    best = max(each, default=0.0)
    winners = [number for number, share in enumerate(each) if share == best]
    if best < HOLDS or (len(winners) > 1 and best < 1.0):
        return None
    return winners[0]


def answer_questions(questions: Sequence[Question], shares: Sequence[Sequence[float | None]]) -> list[int | None]:
    """Answer each question by its shares; where they leave it open, or differ from most of its kind, as its kind.

    Labels are of one kind if their names differ in the number of the layer only, and they are ambiguous in the same
    way: what sound layers prove holds in a layer that is wrong. Where a question is another look at what seemed clear,
    an answer must hold on more than half of the ranks somewhere; and a sum in two layers: where the reduction is
    missing, what follows is wrong.
    """
    found = [proven_answer(each) for each in shares]
    of_kind: dict[object, Counter[int]] = defaultdict(Counter)
    most_ranks: dict[object, set[int]] = defaultdict(set)
    kinds = [_kind(question) for question in questions]
    for kind, answer, each in zip(kinds, found, shares, strict=True):
        if answer is not None and any(share is not None for share in each):
            of_kind[kind][answer] += 1
            most_ranks[kind] |= {number for number, share in enumerate(each) if share is not None and share > HOLDS}
    final: list[int | None] = []
    for question, kind, answer, each in zip(questions, kinds, found, shares, strict=True):
        if of_kind[kind]:
            most, count = of_kind[kind].most_common(1)[0]
            clear = count > MOSTLY * of_kind[kind].total() or len(of_kind[kind]) == 1
            if clear and (answer is None or (answer != most and each[answer] is not None)):
                answer = most
        if answer is not None and question.unsettled.pairs and answer not in most_ranks[kind]:
            answer = None
        if answer is not None and _is_another_sum(question, answer) and of_kind[kind][answer] < _LEAST_SUMS:
            answer = None
        final.append(answer)
    return final


def _is_another_sum(question: Question, answer: int) -> bool:
    """Tell whether an option adds up tensors of several ranks, which what seemed clear does not."""
    seemed, option = question.unsettled, question.options[answer]
    return bool(seemed.pairs) and _adds_ranks(option) and not _adds_ranks(seemed)


def _adds_ranks(plan: LabelPlan) -> bool:
    return any(other.rank != pair.actual.rank for pair in plan.pairs for other in pair.more_actual)


def agrees_otherwise(shares: Sequence[float | None], answer: int) -> int | None:
    """Return the option under which all values of a label agree though its kind has another one, `answer`; or None."""
    own = shares[answer]
    return next((number for number, share in enumerate(shares) if share == 1.0 and own is not None and own < 1.0), None)


def kind_of(key: LabelKey) -> str:
    """Return the kind of a label, which is the same in every layer: its name without the layer's number."""
    return _LAYER.sub("*", key.label, count=1)


def _kind(question: Question) -> object:
    layouts = tuple(next((pair.layout for pair in option.pairs), "") for option in question.options)
    return kind_of(question.unsettled.key), layouts

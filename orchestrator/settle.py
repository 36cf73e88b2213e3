"""Compare what is planned, and settle what the shapes leave open. Pure but for `compare`, which is given."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.proof import HOLDS, answers, kind_of, share_that_holds
from aclcmp.orchestrator.judge.replicas import judge_replicas
from aclcmp.orchestrator.judge.verdicts import ReplicaVerdict
from aclcmp.orchestrator.plan.model import LabelPlan, Plan, Question
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

Outcomes = dict[tuple[LabelKey, int], PairStats | str]
Compare = Callable[[Sequence[Pair]], Outcomes]
"""Compares pairs and returns what came of each (label, rank)."""

_FIRST_OF_A_KIND = 3


@dataclass(frozen=True, slots=True)
class Compared:
    """A plan without questions, and what came of it."""

    plan: Plan
    outcomes: Outcomes
    replicas: tuple[ReplicaVerdict, ...]
    noise: Outcomes = field(default_factory=dict)
    """How far golden replicas lie apart that are not the same bit by bit, and are near enough to be right."""


def compared(plan: Plan, compare: Compare) -> Compared:
    """Compare a plan; settle its questions by comparing every option, and look again at what was inferred and differs.

    What an interrupted `compare` leaves out stays out: a question of which an option is not compared is not settled.
    """
    outcomes = compare(plan.pairs)
    plan, outcomes = _settled(plan, outcomes, compare)
    looked_at: set[LabelKey] = set()
    # a look at the first few of a kind tells whether the others need one: a fault makes all labels after it differ
    for most in (_FIRST_OF_A_KIND, len(plan.labels)):
        again = _second_looks(plan, outcomes, looked_at, most)
        if not again:
            break
        looked_at |= again.keys()
        asked = replace(plan, labels=tuple(again.get(label.key, label) for label in plan.labels))
        plan, outcomes = _settled(asked, outcomes, compare)
    return Compared(plan, outcomes, *_replicas(plan, compare))


def _settled(plan: Plan, outcomes: Outcomes, compare: Compare) -> tuple[Plan, Outcomes]:
    """Answer the questions of a plan as far as values do."""
    questions = plan.questions
    if not questions:
        return plan, outcomes
    rounds = _rounds(questions, outcomes, compare)
    shares = [
        [share_that_holds(option, found) for option, found in zip(question.options, each, strict=True)]
        for question, each in zip(questions, rounds, strict=True)
    ]
    outcomes = dict(outcomes)
    chosen = iter(zip(answers(questions, shares), rounds, strict=True))
    labels = []
    for label in plan.labels:
        parts = [replace(label, questions=())] if label.pairs or label.gaps or not label.questions else []
        for question in label.questions:
            answer, found = next(chosen)
            parts.append(question.unsettled if answer is None else question.options[answer])
            if answer is not None:
                for pair in question.options[answer].pairs:
                    outcomes.pop((pair.key, pair.rank), None)
                outcomes |= found[answer]
        labels.append(functools.reduce(LabelPlan.with_part, parts))
    return replace(plan, labels=tuple(labels)), outcomes


def _second_looks(plan: Plan, outcomes: Outcomes, but: set[LabelKey], most: int) -> dict[LabelKey, LabelPlan]:
    """Turn labels whose inferred layout does not hold into questions, at most so many of a kind.

    Where it holds for others of the kind it is right, and the values are wrong. Where a look has shown another layout,
    all others of the kind are looked at, and where it has not none is.
    """
    open_ = [label for label in plan.labels if label.second_look is not None and not label.questions]
    shares = ((label, share_that_holds(label, outcomes)) for label in open_)
    held = {kind_of(label.key) for label, share in shares if share is not None and share > HOLDS}
    other = {kind_of(label.key) for label in plan.labels if label.key in but and label.second_look is None}
    found: dict[LabelKey, LabelPlan] = {}
    counts: Counter[str] = Counter()
    for label in open_:
        kind = kind_of(label.key)
        wanted = kind not in held and label.key not in but and (not but or kind in other)
        wanted = wanted and share_that_holds(label, outcomes) is not None
        if wanted and counts[kind] < most and label.second_look is not None and (others := label.second_look()):
            counts[kind] += 1
            asked = Question((label, *(replace(option, second_look=None) for option in others)), label)
            found[label.key] = LabelPlan(label.key, questions=(asked,))
    return found


def _rounds(questions: Sequence[Question], outcomes: Outcomes, compare: Compare) -> list[list[Outcomes]]:
    """What came of each option of each question; one that is there because it differed has been compared before."""
    found: list[list[Outcomes]] = [[] for _ in questions]
    for number in range(max(len(question.options) for question in questions)):
        here = [(n, question.options[number]) for n, question in enumerate(questions) if number < len(question.options)]
        known = {n: option is questions[n].unsettled for n, option in here}
        new = [pair for n, option in here if not known[n] for pair in option.pairs]
        results = compare(new) if new else {}
        for n, option in here:
            source = outcomes if known[n] else results
            names = {(pair.key, pair.rank) for pair in option.pairs}
            found[n].append({name: source[name] for name in names if name in source})
    return found


def _replicas(plan: Plan, compare: Compare) -> tuple[tuple[ReplicaVerdict, ...], Outcomes]:
    """Judge what ranks hold that ought to be the same; also return how far apart golden ones are that agree.

    Outcomes are named by label and rank: where a label has several such pairs on a rank they go into several rounds.
    """
    replicas = [each for label in plan.labels for each in label.replicas]
    found: list[list[dict[int, PairStats | str]]] = [[] for _ in replicas]
    rounds: dict[int, list[tuple[int, tuple[Pair, ...]]]] = defaultdict(list)
    used: Counter[LabelKey] = Counter()
    for number, each in enumerate(replicas):
        for pairs in each.against:
            rounds[used[each.key]].append((number, pairs))
            used[each.key] += 1
    for jobs in rounds.values():
        results = compare([pair for _, pairs in jobs for pair in pairs])
        for number, pairs in jobs:
            names = {pair.rank: (pair.key, pair.rank) for pair in pairs}
            found[number].append({rank: results[name] for rank, name in names.items() if name in results})
    verdicts = [judge_replicas(each, results) for each, results in zip(replicas, found, strict=True)]
    noise: Outcomes = {}
    for each, verdict, views in zip(replicas, verdicts, found, strict=True):
        if verdict is None and each.side == "golden":
            noise |= {(each.key, rank): stats for rank, stats in views[0].items()}
    return tuple(verdict for verdict in verdicts if verdict is not None), noise

"""Compare what is planned, and settle what the shapes leave open. Pure but for `compare`, which is given."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aclcmp.orchestrator.core.evidence import ReplicaVerdict
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, Question
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcome, Outcomes, PairStats
from aclcmp.orchestrator.judge.proof import HOLDS, MOSTLY, agrees_otherwise, answer_questions, kind_of, share_that_holds
from aclcmp.orchestrator.judge.replica_verdicts import judge_replicas
from aclcmp.orchestrator.plan.doubts import layout_doubts
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED, UNPROVED

Compare = Callable[[Sequence[Pair]], Outcomes]
"""Compares pairs and returns what came of each (label, rank)."""

_FIRST_OF_A_KIND = 3
_PROVED = 2
"""A layout that holds on so many layers before the first on which it does not is right: the fault begins there."""
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class ResolvedComparison:
    """A plan without questions, and what came of it."""

    plan: Plan
    outcomes: Outcomes
    replicas: tuple[ReplicaVerdict, ...]
    noise: Outcomes = field(default_factory=dict)
    """How far golden replicas lie apart that are not the same bit by bit, and are near enough to be right."""


def compare_and_resolve(plan: Plan, compare: Compare) -> ResolvedComparison:
    """Compare a plan; settle its questions by comparing every option, and look again at what was inferred and differs.

    What an interrupted `compare` leaves out stays out: a question of which an option is not compared is not settled.
    """
    outcomes = compare(plan.pairs)
    plan, outcomes = _answer_questions(plan, outcomes, compare)
    # a look at the first few of a kind tells whether the others need one: a fault makes all labels after it differ
    if first := _second_looks(plan, outcomes):
        before, known = plan, outcomes
        plan, outcomes = _answer_questions(_with_questions(plan, first), outcomes, compare)
        found = {kind_of(label.key) for label in plan.labels if label.key in first and label.second_look is None}
        if found:
            # one kind of module has one layout: the odd layer is wrong, though its values agree in another way
            every = _questions(before, lambda label: kind_of(label.key) in found)
            outcomes = {name: known.get(name, each) if name[0] in every else each for name, each in outcomes.items()}
            plan, outcomes = _answer_questions(_with_questions(plan, every), outcomes, compare)
    plan = replace(plan, notes=(*layout_doubts(plan.labels, plan.levels), *plan.notes))
    return ResolvedComparison(plan, outcomes, *_replicas(plan, compare))


def _answer_questions(plan: Plan, outcomes: Outcomes, compare: Compare) -> tuple[Plan, Outcomes]:
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
    chosen = iter(zip(answer_questions(questions, shares), rounds, shares, strict=True))
    labels = []
    notes: list[str] = []
    for label in plan.labels:
        parts = [replace(label, questions=())] if label.pairs or label.gaps or not label.questions else []
        for question in label.questions:
            answer, found, share = next(chosen)
            settled = question.unsettled if answer is None else question.options[answer]
            if answer is not None and (other := agrees_otherwise(share, answer)) is not None:
                notes.append(_odd_one(question, answer, other))
            if answer is None and _is_wrong_in_all(question, found, share):
                answer = max(range(len(share)), key=lambda number: (share[number] or 0.0, -_error(found[number])))
                notes.append(_wrong_in_all(question, answer))
                settled = _mark_as_unproved(question.options[answer])
            parts.append(settled)
            if answer is not None:
                for pair in question.options[answer].pairs:
                    outcomes.pop((pair.key, pair.rank), None)
                outcomes |= found[answer]
        labels.append(functools.reduce(LabelPlan.with_part, parts))
    plan = replace(plan, labels=tuple(labels), notes=(*plan.notes, *notes))
    unlike = [pair for label in labels if label.unlike for pair in label.pairs if (pair.key, pair.rank) not in outcomes]
    return plan, outcomes | (compare(unlike) if unlike else {})


def _is_wrong_in_all(question: Question, found: Sequence[Outcomes], shares: Sequence[float | None]) -> bool:
    """Whether the values were compared under every layout that shapes allow, and agree under none."""
    if len(question.ways) < 2 or any(share is None or share >= HOLDS for share in shares):
        return False
    return all(option.pairs for option in question.options) and all(
        isinstance(outcomes.get((pair.key, pair.rank)), PairStats)
        for option, outcomes in zip(question.options, found, strict=True)
        for pair in option.pairs
    )


def _odd_one(question: Question, answer: int, other: int) -> str:
    """Say that a label's values agree in another layout than that of its kind."""
    used, own = (next(pair.layout for pair in question.options[number].pairs) for number in (answer, other))
    used, own = (re.sub(f"({INFERRED}|{PROVED})$", "", each) for each in (used, own))
    name = question.unsettled.key.label
    return f"{name}: its values agree as {own}, those of most of its kind as {used}: it is cut in another way"


def _mark_as_unproved(plan: LabelPlan) -> LabelPlan:
    pairs = (replace(pair, layout=pair.layout.replace(PROVED, UNPROVED)) for pair in plan.pairs)
    return replace(plan, pairs=tuple(pairs))


def _error(outcomes: Outcomes) -> float:
    """The error energy of all ranks together."""
    return sum(stats.sum_dd for stats in outcomes.values() if isinstance(stats, PairStats))


def _wrong_in_all(question: Question, answer: int) -> str:
    """Say that a label is wrong under every layout that its shapes allow, and how to tell which one is meant."""
    label = question.unsettled.key.label
    ways = "; ".join(dict.fromkeys(way.words for way in question.ways))
    lines = list(dict.fromkeys(line for way in question.ways for line in way.lines))
    told = " | ".join(lines[:_MOST_LINES]) + " ..." * (len(lines) > _MOST_LINES)
    return (
        f"{label} is wrong under each of the {len(question.ways)} layouts that its shapes allow ({ways}), shown as "
        f"{question.ways[answer].words}; to tell which one is meant put its lines into --layouts: {told}"
    )


def _with_questions(plan: Plan, asked: Mapping[LabelKey, LabelPlan]) -> Plan:
    """A plan in which some labels are questions."""
    return replace(plan, labels=tuple(asked.get(label.key, label) for label in plan.labels))


def _second_looks(plan: Plan, outcomes: Outcomes) -> dict[LabelKey, LabelPlan]:
    """Turn labels whose inferred layout does not hold into questions, a few of each kind.

    Where it holds for most of the kind, or for the first layers, it is right, and the values of the others are wrong.
    """
    shares: dict[str, list[tuple[LabelKey, float]]] = defaultdict(list)
    for label in plan.labels:
        if label.second_look is not None and not label.questions:
            share = share_that_holds(label, outcomes)
            if share is not None:
                shares[kind_of(label.key)].append((label.key, share))
    wanted: set[LabelKey] = set()
    for known in shares.values():
        holds = [share > HOLDS for _, share in known]
        first = holds.index(False) if False in holds else len(holds)
        if sum(holds) > MOSTLY * len(holds) or (first >= _PROVED and not any(holds[first:])):
            continue
        wrong = [key for (key, _), right in zip(known, holds, strict=True) if not right]
        wanted |= set(wrong[:_FIRST_OF_A_KIND])
    return _questions(plan, lambda label: label.key in wanted)


def _questions(plan: Plan, is_asked: Callable[[LabelPlan], bool]) -> dict[LabelKey, LabelPlan]:
    """Ask of labels what else their layout may be."""
    found: dict[LabelKey, LabelPlan] = {}
    for label in plan.labels:
        if label.second_look is None or label.questions or not is_asked(label):
            continue
        if others := label.second_look():
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
    found: list[list[dict[int, Outcome]]] = [[] for _ in replicas]
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

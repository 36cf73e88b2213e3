"""The comparison of a plan, and of the layouts that its shapes leave open. Pure but for `compare`, which is given."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aclcmp.orchestrator.core.evidence import ReplicaVerdict
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, Question
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcome, Outcomes, PairStats
from aclcmp.orchestrator.judge.proof import HOLDS, MOSTLY, agrees_otherwise, answer_questions, kind_of, share_that_holds
from aclcmp.orchestrator.judge.replica_verdicts import judge_replicas
from aclcmp.orchestrator.plan.doubts import layout_doubts
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED, UNPROVED

Compare = Callable[[Sequence[Pair]], Outcomes]
"""Compares pairs; a (label, rank) is left out where it was interrupted."""

_FIRST_OF_A_KIND = 3
"""Labels of one kind whose layout is asked about before that of all others of the kind."""
_PROVED = 2
"""A layout that holds on so many layers before the first on which it does not is right: the fault begins there."""
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class ResolvedComparison:
    """A plan without questions, and the results of comparing it."""

    plan: Plan
    outcomes: Outcomes
    replicas: tuple[ReplicaVerdict, ...]
    noise: Outcomes = field(default_factory=dict)
    """Golden replicas that differ, but are near enough to be right: their differences are noise."""


def compare_and_resolve(plan: Plan, compare: Compare) -> ResolvedComparison:
    """Compare a plan; answer its questions by comparing every option; try other layouts where an inferred one differs.

    What an interrupted `compare` leaves out stays out: a question is open where an option was not compared.
    """
    plan, outcomes = _answer_questions(plan, compare(plan.pairs), compare)
    plan, outcomes = _try_other_layouts(plan, outcomes, compare)
    plan = replace(plan, notes=(*layout_doubts(plan.labels, plan.levels), *plan.notes))
    return ResolvedComparison(plan, outcomes, *_compare_replicas(plan, compare))


def _try_other_layouts(plan: Plan, outcomes: Outcomes, compare: Compare) -> tuple[Plan, Outcomes]:
    """Ask about labels whose inferred layout does not hold: the first few of each kind, and then all of these kinds.

    The first few tell whether the others need it: a fault makes all labels after it differ.
    """
    first = _ask_about_first_of_kinds(plan, outcomes)
    if not first:
        return plan, outcomes
    answered, outcomes_of_first = _answer_questions(_with_questions(plan, first), outcomes, compare)
    kinds = {kind_of(each.key) for each in answered.labels if each.key in first and each.second_look is None}
    if not kinds:
        return answered, outcomes_of_first
    # one kind of module has one layout: the odd layer is wrong, though its values agree in another way
    every = _ask(plan, lambda label: kind_of(label.key) in kinds)
    outcomes = {
        name: outcomes.get(name, each) if name[0] in every else each for name, each in outcomes_of_first.items()
    }
    return _answer_questions(_with_questions(answered, every), outcomes, compare)


def _answer_questions(plan: Plan, outcomes: Outcomes, compare: Compare) -> tuple[Plan, Outcomes]:
    """Answer the questions of a plan as far as values do."""
    questions = plan.questions
    if not questions:
        return plan, outcomes
    compared = _compare_options(questions, outcomes, compare)
    shares = [
        [share_that_holds(option, results) for option, results in zip(question.options, each, strict=True)]
        for question, each in zip(questions, compared, strict=True)
    ]
    answers = map(_answer, questions, answer_questions(questions, shares), compared, shares)
    outcomes = dict(outcomes)
    labels = []
    notes: list[str] = []
    for label in plan.labels:
        parts = [replace(label, questions=())]
        for answer in (next(answers) for _ in label.questions):
            parts.append(answer.plan)
            notes += answer.notes
            for pair in answer.pairs:
                outcomes.pop((pair.key, pair.rank), None)
            outcomes |= answer.outcomes
        labels.append(functools.reduce(LabelPlan.with_part, parts))
    plan = replace(plan, labels=tuple(labels), notes=(*plan.notes, *notes))
    unlike = [pair for label in labels if label.unlike for pair in label.pairs if (pair.key, pair.rank) not in outcomes]
    return plan, outcomes | (compare(unlike) if unlike else {})


class _Answer(NamedTuple):
    """The plan that answers a question, or leaves it open; with the pairs and outcomes of the option that counts."""

    plan: LabelPlan
    notes: list[str]
    pairs: Sequence[Pair]
    outcomes: Outcomes


def _answer(
    question: Question, number: int | None, compared: Sequence[Outcomes], shares: Sequence[float | None]
) -> _Answer:
    """Answer a question by the option of this number; by the nearest where values are wrong under every option."""
    if number is not None:
        other = agrees_otherwise(shares, number)
        notes = [] if other is None else [_odd_one(question, number, other)]
        option = question.options[number]
        return _Answer(option, notes, option.pairs, compared[number])
    if _is_wrong_in_all(question, compared, shares):
        number = max(range(len(shares)), key=lambda number: (shares[number] or 0.0, -_error(compared[number])))
        option = question.options[number]
        return _Answer(_mark_unproved_layout(option), [_wrong_in_all(question, number)], option.pairs, compared[number])
    return _Answer(question.unsettled, [], (), {})


def _is_wrong_in_all(question: Question, compared: Sequence[Outcomes], shares: Sequence[float | None]) -> bool:
    """Tell whether the values were compared under every layout that shapes allow, and agree under none."""
    if len(question.ways) < 2 or any(share is None or share >= HOLDS for share in shares):
        return False
    return all(option.pairs for option in question.options) and all(
        isinstance(outcomes.get((pair.key, pair.rank)), PairStats)
        for option, outcomes in zip(question.options, compared, strict=True)
        for pair in option.pairs
    )


def _odd_one(question: Question, answer: int, other: int) -> str:
    """Say that a label's values agree in another layout than that of its kind."""
    used, own = (next(pair.layout for pair in question.options[number].pairs) for number in (answer, other))
    used, own = (re.sub(f"({INFERRED}|{PROVED})$", "", each) for each in (used, own))
    name = question.unsettled.key.label
    return f"{name}: its values agree as {own}, those of most of its kind as {used}: it is cut in another way"


def _mark_unproved_layout(plan: LabelPlan) -> LabelPlan:
    pairs = (replace(pair, layout=pair.layout.replace(PROVED, UNPROVED)) for pair in plan.pairs)
    return replace(plan, pairs=tuple(pairs))


def _error(outcomes: Outcomes) -> float:
    """Return the error energy of all ranks together."""
    return sum(stats.sum_dd for stats in outcomes.values() if isinstance(stats, PairStats))


def _wrong_in_all(question: Question, answer: int) -> str:
    """Say that a label is wrong under every layout that its shapes allow, and how to tell which one is meant."""
    label = question.unsettled.key.label
    ways = "; ".join(dict.fromkeys(way.words for way in question.ways))
    some = (" | ".join(way.lines[:_MOST_LINES]) + " ..." * (len(way.lines) > _MOST_LINES) for way in question.ways)
    lines = "; or ".join(dict.fromkeys(some))
    return (
        f"{label} is wrong under each of the {len(question.ways)} layouts that its shapes allow ({ways}), shown as "
        f"{question.ways[answer].words}; to tell which one is meant put its lines, here with | between them, into "
        f"--layouts: {lines}"
    )


def _with_questions(plan: Plan, asked: Mapping[LabelKey, LabelPlan]) -> Plan:
    """Return the plan with questions in place of some labels."""
    return replace(plan, labels=tuple(asked.get(label.key, label) for label in plan.labels))


def _ask_about_first_of_kinds(plan: Plan, outcomes: Outcomes) -> dict[LabelKey, LabelPlan]:
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
    for of_kind in shares.values():
        holds = [share > HOLDS for _, share in of_kind]
        first = holds.index(False) if False in holds else len(holds)
        if sum(holds) > MOSTLY * len(holds) or (first >= _PROVED and not any(holds[first:])):
            continue
        wrong = [key for (key, _), right in zip(of_kind, holds, strict=True) if not right]
        wanted |= set(wrong[:_FIRST_OF_A_KIND])
    return _ask(plan, lambda label: label.key in wanted)


def _ask(plan: Plan, is_wanted: Callable[[LabelPlan], bool]) -> dict[LabelKey, LabelPlan]:
    """Turn labels into questions, with all other layouts that they may have as options."""
    found: dict[LabelKey, LabelPlan] = {}
    for label in plan.labels:
        if label.second_look is None or label.questions or not is_wanted(label):
            continue
        if others := label.second_look():
            question = Question((label, *(replace(option, second_look=None) for option in others)), label)
            found[label.key] = LabelPlan(label.key, questions=(question,), unpaired=label.unpaired)
    return found


def _compare_options(questions: Sequence[Question], outcomes: Outcomes, compare: Compare) -> list[list[Outcomes]]:
    """Compare every option of each question, the first options of all together, then the second ones, and so on.

    An option that is the question's `unsettled` plan has been compared before: its results are among `outcomes`.
    """
    found: list[list[Outcomes]] = [[] for _ in questions]
    for number in range(max(len(question.options) for question in questions)):
        here = [(n, question.options[number]) for n, question in enumerate(questions) if number < len(question.options)]
        is_known = {n: option is questions[n].unsettled for n, option in here}
        new = [pair for n, option in here if not is_known[n] for pair in option.pairs]
        results = compare(new) if new else {}
        for n, option in here:
            source = outcomes if is_known[n] else results
            names = {(pair.key, pair.rank) for pair in option.pairs}
            found[n].append({name: source[name] for name in names if name in source})
    return found


def _compare_replicas(plan: Plan, compare: Compare) -> tuple[tuple[ReplicaVerdict, ...], Outcomes]:
    """Judge what ranks hold that ought to be the same; also return how far apart golden ones are that agree.

    Outcomes are named by label and rank: where a label has several such pairs on a rank they go into several rounds.
    """
    replicas = [each for label in plan.labels for each in label.replicas]
    results: list[list[dict[int, Outcome]]] = [[] for _ in replicas]
    rounds: dict[int, list[tuple[int, tuple[Pair, ...]]]] = defaultdict(list)
    next_round: Counter[LabelKey] = Counter()
    for number, each in enumerate(replicas):
        for pairs in each.against:
            rounds[next_round[each.key]].append((number, pairs))
            next_round[each.key] += 1
    for comparisons in rounds.values():
        outcomes = compare([pair for _, pairs in comparisons for pair in pairs])
        for number, pairs in comparisons:
            names = {pair.rank: (pair.key, pair.rank) for pair in pairs}
            results[number].append({rank: outcomes[name] for rank, name in names.items() if name in outcomes})
    verdicts = [judge_replicas(each, by_rank) for each, by_rank in zip(replicas, results, strict=True)]
    noise: Outcomes = {}
    for each, verdict, views in zip(replicas, verdicts, results, strict=True):
        if verdict is None and each.side == "golden":
            noise |= {(each.key, rank): outcome for rank, outcome in views[0].items()}
    return tuple(verdict for verdict in verdicts if verdict is not None), noise

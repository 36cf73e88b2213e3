"""Whether a label's actual side is golden's other label: outputs, weights or names exchanged. Pure beside `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.hints import EXPLAINS
from aclcmp.orchestrator.pipeline.missing_reductions import share_explained
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

_MOST_LABELS = 8
"""Labels that are asked about, in golden order."""
_MOST_OTHERS = 6
"""Golden labels that each is held against, those next to it in the model first."""
_MOST_RANKS = 16


def exchanged_label_hints(
    plan: Plan, labels: Sequence[LabelVerdict], compare: Compare
) -> dict[LabelKey, tuple[Hint, ...]]:
    """Return hints for labels of which the actual side is golden's other label, on all ranks where it diverged.

    Asked are labels of the same shape: those of the same parent, the same one of the layer or the call before and
    after, and neighbours in golden order.
    """
    numbers = {label.key: number for number, label in enumerate(plan.labels)}
    asked = {
        label.key: (label, _others(plan, numbers[label.key]), _wrong(label))
        for label in labels[:_MOST_LABELS]
        if label.status is Status.DIVERGED
    }
    found: dict[LabelKey, tuple[Hint, ...]] = {}
    for number in range(_MOST_OTHERS):
        pairs: dict[LabelKey, list[Pair]] = {}
        for key, (_, others, wrong) in asked.items():
            if key not in found and number < len(others) and wrong:
                pairs[key] = _pairs(plan.labels[numbers[key]], others[number], wrong)
        outcomes = compare([pair for each in pairs.values() for pair in each]) if any(pairs.values()) else {}
        for key in pairs:
            _, others, wrong = asked[key]
            shares = [share_explained(outcomes.get((key, rank)), [verdict]) for rank, verdict in wrong.items()]
            if min(shares) >= EXPLAINS:
                found[key] = (_hint(key, others[number].key, tuple(wrong), min(shares)),)
    return found


def _wrong(label: LabelVerdict) -> dict[int, RankVerdict]:
    wrong = [each for each in label.ranks if each.status is Status.DIVERGED and each.stats is not None]
    return {verdict.rank: verdict for verdict in wrong[:_MOST_RANKS]}


def _others(plan: Plan, number: int) -> list[LabelPlan]:
    """Labels that may have been exchanged with one, the likeliest first."""
    here = plan.labels[number]
    shapes, kind, parent = _shapes(here), _kind(plan, here.key), here.key.label.rpartition(".")[0]
    ranked: list[tuple[int, int, LabelPlan]] = []
    for place, other in enumerate(plan.labels):
        key = other.key
        if place == number or key.task != here.key.task:
            continue
        calls = abs(key.occurrence - here.key.occurrence)
        if key.label == here.key.label:
            grade = 1 if calls == 1 else 3
        elif calls:
            continue
        elif parent and key.label.rpartition(".")[0] == parent:
            grade = 0
        else:
            grade = 1 if _kind(plan, key) == kind else 2
        ranked.append((grade, abs(place - number), other))
    ranked.sort(key=lambda each: each[:2])
    likely = (other for grade, _, other in ranked if grade < 3 and shapes and other.pairs)
    alike = (each for each in likely if each.pairs[0].whole_shape == here.pairs[0].whole_shape)
    return list(islice((each for each in alike if _shapes(each) == shapes), _MOST_OTHERS))


def _kind(plan: Plan, key: LabelKey) -> str:
    layer = plan.levels[key].layer
    return kind_in_layers(key.label, layer) if layer else key.label


def _shapes(label: LabelPlan) -> Mapping[int, object]:
    """What each rank holds of a label, where that is one tensor; empty where some rank holds it otherwise."""
    held = {pair.rank: (pair.whole_shape, pair.region, pair.golden_region, pair.actual_region) for pair in label.pairs}
    simple = all(pair.is_whole and not pair.more_golden and not pair.more_actual for pair in label.pairs)
    return held if simple and len(held) == len(label.pairs) else {}


def _pairs(here: LabelPlan, other: LabelPlan, ranks: Mapping[int, object]) -> list[Pair]:
    golden = {pair.rank: pair.golden for pair in other.pairs}
    return [replace(pair, golden=golden[pair.rank]) for pair in here.pairs if pair.rank in ranks]


def _hint(key: LabelKey, other: LabelKey, ranks: tuple[int, ...], share: float) -> Hint:
    if other.label == key.label:
        words = f"it is golden's of call {other.occurrence}: a step, a position or an order of calls off by one?"
    else:
        words = f"it is golden's {other.label}: outputs, weights or names exchanged, or a layer left out?"
    return Hint(key, ranks, "another label", words, share)

"""Labels whose actual side is golden's other label: outputs, weights or names exchanged. Pure but for `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.text import of_ranks
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.hints import EXPLAINS
from aclcmp.orchestrator.pipeline.missing_reductions import explained_share
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

_MOST_LABELS = 8
"""Most labels for which candidates are compared, in golden order."""
_MOST_CANDIDATES = 6
"""Most golden labels with which each is compared; those next to it in the model come first."""
_MOST_RANKS = 16


def exchanged_label_hints(
    plan: Plan, labels: Sequence[LabelVerdict], compare: Compare, judged: Sequence[LabelVerdict]
) -> dict[LabelKey, tuple[Hint, ...]]:
    """Return hints for labels of which the actual side is golden's other label, on all ranks where it diverged.

    The candidates have the same shape: labels of the same parent, the same label of the layer or the call before and
    after, and neighbours in golden order. Each round compares every label with its next candidate. Of two parts of one
    tensor it is also tried whether each is the other: `judged` are all labels.
    """
    numbers = {label.key: number for number, label in enumerate(plan.labels)}
    diverged = {
        label.key: (_candidates(plan, numbers[label.key]), wrong)
        for label in labels[:_MOST_LABELS]
        if label.status is Status.DIVERGED and (wrong := _diverged_ranks(label))
    }
    all_labels = {label.key: label for label in judged}
    found: dict[LabelKey, tuple[Hint, ...]] = {}
    for number in range(_MOST_CANDIDATES):
        pairs = {
            key: _pairs(plan.labels[numbers[key]], candidates[number], wrong)
            for key, (candidates, wrong) in diverged.items()
            if key not in found and number < len(candidates)
        }
        outcomes = compare([pair for each in pairs.values() for pair in each]) if any(pairs.values()) else {}
        for key in pairs:
            candidates, wrong = diverged[key]
            shares = [explained_share(outcomes.get((key, rank)), [verdict]) for rank, verdict in wrong.items()]
            if min(shares) >= EXPLAINS:
                here, other = plan.labels[numbers[key]], candidates[number]
                back = _share_of_the_other(here, other, wrong, all_labels.get(other.key), compare)
                found[key] = (_hint(key, other.key, tuple(wrong), min(*shares, back or 1.0), exchanged=back > 0.0),)
    return found


def _share_of_the_other(
    here: LabelPlan,
    other: LabelPlan,
    ranks: Mapping[int, object],
    judged: LabelVerdict | None,
    compare: Compare,
) -> float:
    """Return the share of the other label's error that golden's label here explains; 0 where it is not exchanged.

    It is tried where both are parts of one stored tensor on each of the ranks.
    """
    stored = {(pair.rank, pair.actual.path, pair.actual.offset) for pair in here.pairs if pair.rank in ranks}
    theirs = {(pair.rank, pair.actual.path, pair.actual.offset) for pair in other.pairs if pair.rank in ranks}
    wrong = {rank: each for rank, each in _diverged_ranks(judged).items() if rank in ranks} if judged else {}
    if stored != theirs or wrong.keys() != set(ranks):
        return 0.0
    outcomes = compare(_pairs(other, here, ranks))
    least = min(explained_share(outcomes.get((other.key, rank)), [verdict]) for rank, verdict in wrong.items())
    return least if least >= EXPLAINS else 0.0


def _diverged_ranks(label: LabelVerdict) -> dict[int, RankVerdict]:
    diverged = [each for each in label.ranks if each.status is Status.DIVERGED and each.stats is not None]
    return {verdict.rank: verdict for verdict in diverged[:_MOST_RANKS]}


def _candidates(plan: Plan, number: int) -> list[LabelPlan]:
    """Return labels that may have been exchanged with one, the likeliest first."""
    here = plan.labels[number]
    shapes, kind = _shapes(here), _kind(plan, here.key)
    if not shapes:
        return []
    ranked: list[tuple[int, int, LabelPlan]] = []
    for place, other in enumerate(plan.labels):
        grade = _grade(plan, here.key, kind, other.key) if place != number else None
        if grade is not None and other.pairs:
            ranked.append((grade, abs(place - number), other))
    ranked.sort(key=lambda each: each[:2])
    alike = (each for _, _, each in ranked if each.pairs[0].whole_shape == here.pairs[0].whole_shape)
    return list(islice((each for each in alike if _shapes(each) == shapes), _MOST_CANDIDATES))


def _grade(plan: Plan, here: LabelKey, kind: str, other: LabelKey) -> int | None:
    """Return how unlikely it is, from 0 to 2, that two labels were exchanged; None if they cannot be."""
    calls = abs(other.occurrence - here.occurrence)
    if other.task != here.task:
        return None
    if other.label == here.label:
        return 1 if calls == 1 else None
    if calls:
        return None
    parent = here.label.rpartition(".")[0]
    if parent and other.label.rpartition(".")[0] == parent:
        return 0
    return 1 if _kind(plan, other) == kind else 2


def _kind(plan: Plan, key: LabelKey) -> str:
    layer = plan.levels[key].layer
    return kind_in_layers(key.label, layer) if layer else key.label


def _shapes(label: LabelPlan) -> Mapping[int, object]:
    """Return the regions of a label by rank; empty unless each rank has one pair of tensors that are stored whole."""
    regions = {pair.rank: (pair.whole_shape, pair.region) for pair in label.pairs}
    simple = all(pair.is_whole and not pair.more_golden and not pair.more_actual for pair in label.pairs)
    return regions if simple and len(regions) == len(label.pairs) else {}


def _pairs(here: LabelPlan, other: LabelPlan, ranks: Mapping[int, object]) -> list[Pair]:
    beside = {pair.rank: pair for pair in other.pairs}
    return [
        replace(pair, golden=beside[pair.rank].golden, golden_region=beside[pair.rank].golden_region)
        for pair in here.pairs
        if pair.rank in ranks
    ]


def _hint(key: LabelKey, other: LabelKey, ranks: tuple[int, ...], share: float, *, exchanged: bool) -> Hint:
    if exchanged:
        words = f"{key.label} and {other.label} are exchanged in the tensor of {of_ranks(ranks)} that holds both"
    elif other.label == key.label:
        words = f"it is golden's of call {other.occurrence}: a step, a position or an order of calls off by one?"
    else:
        words = f"it is golden's {other.label}: outputs, weights or names exchanged, or a layer left out?"
    return Hint(key, ranks, "another label", words, share)

"""Ranks whose slice is another's, and fused tensors whose parts are exchanged. Pure but for `compare`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby, islice

from aclcmp.labeling.engines.points import PARTS
from aclcmp.orchestrator.compare.diagnosis.excerpt import excerpt_of
from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.text import of_ranks
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.hints import EXPLAINS
from aclcmp.orchestrator.pipeline.missing_reductions import explained_share
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

_MOST_LABELS = 8
"""Most labels for which candidates are compared, in golden order."""
_MOST_RANKS = 16
_MOST_OTHERS = 7
"""Most other ranks whose slices are tried for each rank; those that are wrong too come first, then its neighbours."""
_SAMPLE = 1 << 14
"""Numbers of each slice that are compared first: what they do not suggest is not read."""
_RESEMBLES = 0.1
_MOST_NAMED = 3

_Name = tuple[LabelKey, int]


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """What a rank may hold instead: golden's slice of rank `other`, or its own with two parts exchanged."""

    pairs: tuple[Pair, ...]
    other: int | None = None
    parts: tuple[int, int] = (0, 0)
    """Numbers of the exchanged parts, from 0."""


def exchanged_slice_hints(
    plan: Plan, labels: Sequence[LabelVerdict], compare: Compare
) -> dict[LabelKey, tuple[Hint, ...]]:
    """Return hints for ranks that hold golden's slice of another rank, or two parts of theirs in exchanged places.

    Each is proven: beside what it holds instead, a rank is right within its limits, on all of its values.
    """
    planned = {label.key: label.pairs for label in plan.labels}
    verdicts: dict[_Name, RankVerdict] = {}
    waiting: dict[_Name, Iterator[_Elsewhere]] = {}
    parts: dict[LabelKey, int] = {}
    for label in labels[:_MOST_LABELS]:
        by_rank = _slices(planned.get(label.key, ()))
        wrong = {each.rank: each for each in label.ranks if each.status is Status.DIVERGED and each.stats is not None}
        parts[label.key] = max(map(len, by_rank.values()), default=0)
        for rank in list(wrong)[:_MOST_RANKS]:
            verdicts[label.key, rank] = wrong[rank]
            waiting[label.key, rank] = _candidates(rank, by_rank, wrong)
    found: dict[LabelKey, dict[int, tuple[_Elsewhere, float]]] = defaultdict(dict)
    while tried := {name: each for name, several in waiting.items() if (each := next(several, None)) is not None}:
        samples = compare([pair for name, each in tried.items() for pair in _sample(each, verdicts[name])])
        likely = {name: each for name, each in tried.items() if _resembles(samples.get(name))}
        outcomes = compare([pair for each in likely.values() for pair in each.pairs]) if likely else {}
        for (key, rank), each in likely.items():
            share = explained_share(outcomes.get((key, rank)), [verdicts[key, rank]])
            if share >= EXPLAINS:
                found[key][rank] = each, share
        waiting = {(key, rank): waiting[key, rank] for key, rank in tried if rank not in found[key]}
    return {key: tuple(_hints(key, parts[key], ranks)) for key, ranks in found.items() if ranks}


def _slices(pairs: Sequence[Pair]) -> dict[int, list[Pair]]:
    """Return the pairs of each rank in the order in which they lie in its tensor; empty where they are no slices."""
    if not all(pair.is_whole and not pair.more_golden and not pair.more_actual for pair in pairs):
        return {}
    return {
        rank: sorted(several, key=lambda pair: pair.actual_region.start)
        for rank, several in groupby(pairs, lambda pair: pair.rank)
    }


def _candidates(rank: int, by_rank: Mapping[int, list[Pair]], wrong: Mapping[int, object]) -> Iterator[_Elsewhere]:
    """Yield what a rank may hold instead of its own slice, the likeliest first."""
    own = by_rank.get(rank, [])
    for one, other in combinations(range(len(own)), 2) if len(own) <= _MOST_NAMED else ():
        if own[one].region.shape == own[other].region.shape:
            places = list(own)
            places[one], places[other] = own[other], own[one]
            yield _Elsewhere(_at(own, places), parts=(one, other))
    seen = {_golden_places(own)}
    others = sorted(by_rank, key=lambda each: (each not in wrong, abs(each - rank), each))
    alike = (each for each in others if [p.region.shape for p in by_rank[each]] == [p.region.shape for p in own])
    distinct = (each for each in alike if _golden_places(by_rank[each]) not in seen)
    for each in islice(distinct, _MOST_OTHERS):
        seen.add(_golden_places(by_rank[each]))
        yield _Elsewhere(_at(own, by_rank[each]), other=each)


def _golden_places(pairs: Sequence[Pair]) -> tuple[object, ...]:
    return tuple((pair.golden, pair.golden_region) for pair in pairs)


def _at(own: Sequence[Pair], places: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return a rank's pairs beside golden of other places."""
    return tuple(
        replace(pair, golden=place.golden, golden_region=place.golden_region)
        for pair, place in zip(own, places, strict=True)
    )


def _sample(each: _Elsewhere, verdict: RankVerdict) -> tuple[Pair, ...]:
    assert verdict.stats is not None
    return excerpt_of(each.pairs, verdict.stats.rows, _SAMPLE)


def _resembles(outcome: PairStats | str | None) -> bool:
    """Tell whether a sample is nearly golden's; constant values resemble nothing."""
    return (
        isinstance(outcome, PairStats)
        and outcome.min_y < outcome.max_y
        and outcome.sum_dd <= _RESEMBLES * outcome.sum_yy
    )


def _hints(key: LabelKey, parts: int, found: Mapping[int, tuple[_Elsewhere, float]]) -> Iterator[Hint]:
    others = {rank: each.other for rank, (each, _) in sorted(found.items()) if each.other is not None}
    if others:
        least = min(found[rank][1] for rank in others)
        yield Hint(key, tuple(others), "another rank's slice", _words_on_slices(others), least)
    by_parts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for rank, (each, _) in sorted(found.items()):
        if each.other is None:
            by_parts[each.parts].append(rank)
    for which, ranks in by_parts.items():
        least = min(found[rank][1] for rank in ranks)
        one, other = _part_names(key.label, parts, which)
        whose = f"{key.label.rpartition('.')[2]} of {of_ranks(ranks)}"
        words = f"{one} and {other} are exchanged in the {whose}: weights stacked, or outputs split, in another order?"
        yield Hint(key, tuple(ranks), "exchanged parts", words, least)


def _words_on_slices(others: Mapping[int, int]) -> str:
    """Say which rank holds whose slice."""
    (rank, other), *more = others.items()
    if more == [(other, rank)]:
        return f"ranks {rank} and {other} hold each other's slices: their ranks, weights or devices exchanged?"
    told = [f"rank {each} that of rank {of}" for each, of in more]
    rest = f" and {len(told) - _MOST_NAMED + 1} more" * (len(told) >= _MOST_NAMED)
    words = ", ".join([f"rank {rank} holds what belongs to rank {other}", *told[: _MOST_NAMED - 1]])
    cause = "an order of ranks, or a slice that is off?" if more else "its rank, its weights or its slice is another's?"
    return f"{words}{rest}: {cause}"


def _part_names(label: str, parts: int, which: tuple[int, int]) -> tuple[str, str]:
    """Return the names of two parts of a fused tensor: "k" and "v" of a `qkv_proj`, else "part 2" and "3"."""
    own = label.rpartition(".")[2]
    names = PARTS.get(own, PARTS.get(f"{own}_proj", ()))
    if len(names) == parts:
        one, other = (names[number].removesuffix("_proj") for number in which)
        return one, other
    return f"parts {which[0] + 1}", f"{which[1] + 1}"

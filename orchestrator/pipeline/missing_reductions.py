"""Ranks whose sum is golden: a reduction over them is missing. Pure but for `compare`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.text import ranks_text
from aclcmp.orchestrator.core.verdicts import WRONG, LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.hints import EXPLAINS
from aclcmp.orchestrator.judge.pair_status import judge_pair
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

_MOST_SUMMED = 64


@dataclass(frozen=True, slots=True)
class _Sum:
    """Ranks of one label whose sum may be golden."""

    label: LabelVerdict
    pairs: tuple[Pair, ...]

    @property
    def verdicts(self) -> list[RankVerdict]:
        """The verdicts on its ranks."""
        ranks = {pair.rank for pair in self.pairs}
        return [verdict for verdict in self.label.ranks if verdict.rank in ranks]

    @property
    def pair(self) -> Pair:
        """The pair that compares golden with the sum."""
        first, *others = self.pairs
        return replace(first, more_actual=tuple(each.actual for each in others))


def missing_reduction_hints(
    plan: Plan, labels: Sequence[LabelVerdict], compare: Compare
) -> dict[LabelKey, tuple[Hint, ...]]:
    """Return hints for labels of which the sum over groups of wrong ranks is golden.

    A group is all ranks that hold the same region, or a block of neighbours, or ranks a step apart, as parallel groups
    are laid out. It is a hint only: no layout is inferred from it.
    """
    planned = {label.key: label.pairs for label in plan.labels}
    rounds: list[list[list[_Sum]]] = []  # for each attempt, for each label: the groups of one way to group
    for label in labels:
        alike = _alike(label, planned.get(label.key, ()))
        for number, groups in enumerate(_ways(alike)):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append([_Sum(label, tuple(group)) for group in groups])
    found: dict[LabelKey, tuple[Hint, ...]] = {}
    for attempt in rounds:
        attempt = [sums for sums in attempt if sums[0].label.key not in found]
        if not attempt:
            continue
        outcomes = compare([each.pair for sums in attempt for each in sums])
        for sums in attempt:
            shares = [explained_share(outcomes.get((each.pair.key, each.pair.rank)), each.verdicts) for each in sums]
            if min(shares) >= EXPLAINS:
                found[sums[0].label.key] = _hints(sums, shares)
    return found


def _alike(label: LabelVerdict, pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs of the wrong ranks if all hold the same region of the label, as one tensor each; else none."""
    wrong = {verdict.rank for verdict in label.ranks if verdict.status in WRONG and verdict.stats is not None}
    by_rank: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.rank in wrong:
            by_rank[pair.rank].append(pair)
    single = [each[0] for each in by_rank.values() if len(each) == 1]
    regions = {
        (pair.whole_shape, pair.region, pair.actual_region, pair.actual.dtype, pair.actual.shape) for pair in single
    }
    simple = all(pair.is_whole and not pair.more_actual and not pair.more_golden for pair in single)
    alike = len(regions) == 1 and simple and len(single) == len(by_rank)
    return sorted(single, key=lambda pair: pair.rank) if alike else []


def _ways(pairs: Sequence[Pair]) -> list[list[list[Pair]]]:
    """Return the ways to group ranks: all, neighbours, or ranks a step apart; groups have at least two."""
    count = len(pairs)
    ways: list[list[list[Pair]]] = []
    for size in (size for size in range(min(count, _MOST_SUMMED), 1, -1) if count % size == 0):
        ways.append([list(pairs[begin : begin + size]) for begin in range(0, count, size)])
        if size < count:
            ways.append([list(pairs[begin :: count // size]) for begin in range(count // size)])
    return ways


def explained_share(outcome: PairStats | str | None, verdicts: Sequence[RankVerdict]) -> float:
    """Return the share of the error energy of the best of the verdicts that is gone in an outcome.

    It is 0 where the outcome is not right within the verdicts' limits.
    """
    if not isinstance(outcome, PairStats):
        return 0.0
    limits = next((verdict.limits for verdict in verdicts if verdict.limits is not None), None)
    if limits is None or judge_pair(outcome, metrics_of(outcome), limits)[0] not in (Status.MATCH, Status.DRIFT):
        return 0.0
    least = min(verdict.stats.sum_dd for verdict in verdicts if verdict.stats is not None)
    return 1 - outcome.sum_dd / least if least > 0.0 else 0.0


def _hints(sums: Sequence[_Sum], shares: Sequence[float]) -> tuple[Hint, ...]:
    groups = [[pair.rank for pair in each.pairs] for each in sums]
    ranks = tuple(sorted(rank for group in groups for rank in group))
    more = f", and so of {len(groups) - 1} more groups" if len(groups) > 1 else ""
    words = f"the sum over {ranks_text(groups[0])} is golden{more}: a reduction over them is missing"
    return (Hint(sums[0].label.key, ranks, "missing reduction", words, min(shares)),)

"""A second look at what does not match, and what follows. Pure but for `compare` and `look`, which are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from math import isfinite, sqrt

from aclcmp.orchestrator.compare.actors.schedule import pair_bytes
from aclcmp.orchestrator.compare.diagnosis.excerpt import excerpt_of
from aclcmp.orchestrator.core.diagnosis import Hint, Look, Looks, Pattern, Suspect
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Basis, PairStats
from aclcmp.orchestrator.core.verdicts import WRONG, Judgement, LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.judge.error_patterns import pattern_of
from aclcmp.orchestrator.judge.hints import hints_of
from aclcmp.orchestrator.judge.noise import noise_of
from aclcmp.orchestrator.pipeline.exchanged_labels import exchanged_label_hints
from aclcmp.orchestrator.pipeline.missing_reductions import missing_reduction_hints
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

MOST_LOOKS = 256
"""At most so many (label, rank) are looked at again, those that are wrong by themselves first."""
MOST_FITTED = 32
"""Fits are tried on at most so many labels, those that are wrong by themselves, in golden order."""
MOST_RANKS_FITTED = 16
"""Of one label fits are tried on at most so many ranks, those with the largest errors."""

MOST_BYTES = 4 << 30
"""Those that are not wrong by themselves are looked at again up to so many bytes of all, which takes seconds."""

Findings = tuple[dict[tuple[LabelKey, int], Look], tuple[Pattern, ...], tuple[Hint, ...]]

NO_FINDINGS: Findings = ({}, (), ())


def diagnose(
    plan: Plan,
    judgement: Judgement,
    compare: Compare,
    look: Callable[[Sequence[Suspect]], Looks],
    hosts: Mapping[int, str] | None = None,
) -> Findings:
    """Look again at (label, rank) that do not match; return what was found, where errors sit, and what they look like.

    Patterns and hints are of labels that are wrong by themselves, in golden order. `compare` and `look` may leave out
    what was interrupted, and Ctrl-C elsewhere leaves all of it out; `hosts` are by rank, as far as known. Summaries
    have no second look.
    """
    try:
        return _diagnose(plan, judgement, compare, look, hosts or {})
    except KeyboardInterrupt:
        return NO_FINDINGS


def _diagnose(
    plan: Plan,
    judgement: Judgement,
    compare: Compare,
    look: Callable[[Sequence[Suspect]], Looks],
    hosts: Mapping[int, str],
) -> Findings:
    own = [label for label in judgement.labels if _is_own(label)]
    noise = noise_of(judgement.labels, [label.key for label in own])
    suspects = _suspects(plan, judgement, own, noise)
    told = look(suspects) if suspects else {}
    looks = {name: each for name, each in told.items() if isinstance(each, Look)}
    by_label: dict[LabelKey, dict[int, Look]] = {label.key: {} for label in own}
    for (key, rank), each in looks.items():
        by_label.setdefault(key, {})[rank] = each
    after = _after_collectives(plan, judgement)
    patterns = tuple(
        pattern_of(label, by_label[label.key], hosts, noise[label.key], after_collective=label.key in after)
        for label in own
    )
    interrupted = len(told) < len(suspects)
    sums = {} if interrupted else missing_reduction_hints(plan, own[:MOST_FITTED], compare)
    others = {} if interrupted else exchanged_label_hints(plan, own, compare)
    hints: list[Hint] = []
    for label in own:
        hints += sums.get(label.key, ())
        hints += others.get(label.key) or hints_of(label, by_label[label.key], noise[label.key])
    return looks, patterns, tuple(hints)


def _is_own(label: LabelVerdict) -> bool:
    return any(verdict.status in WRONG and verdict.origin is Origin.OWN for verdict in label.ranks)


def _suspects(
    plan: Plan, judgement: Judgement, own: Sequence[LabelVerdict], noise: Mapping[LabelKey, Mapping[int, float]]
) -> list[Suspect]:
    """What to look at again: own errors, then other wrong ones, then what drifts."""
    fitted = {label.key for label in own[:MOST_FITTED]}
    pairs = {
        (label.key, rank): tuple(held)
        for label in plan.labels
        for rank, held in groupby(label.pairs, lambda pair: pair.rank)
    }
    chosen: list[tuple[int, LabelVerdict, RankVerdict]] = []
    for label in judgement.labels:
        for verdict in label.ranks:
            if verdict.status in (*WRONG, Status.DRIFT) and (label.key, verdict.rank) in pairs:
                grade = 0 if verdict.origin is Origin.OWN else 1 if verdict.status in WRONG else 2
                chosen.append((grade, label, verdict))
    chosen.sort(key=lambda item: item[0])  # stable: golden order within
    worst = {label.key: _worst_ranks(label) for label in own[:MOST_FITTED]}
    found: list[Suspect] = []
    nbytes = 0
    for grade, label, verdict in chosen:
        held, stats = pairs[label.key, verdict.rank], verdict.stats
        if stats is None or stats.basis is not Basis.VALUES or not all(pair.is_whole for pair in held):
            continue
        nbytes += sum(map(pair_bytes, held))
        if len(found) == MOST_LOOKS or (grade and nbytes > MOST_BYTES):
            break
        fit = label.key in fitted and verdict.rank in worst[label.key]
        excerpt = excerpt_of(held, stats.rows) if fit else ()
        found.append(Suspect(held, _rms(stats), excerpt, noise.get(label.key, {}).get(verdict.rank, 0.0)))
    return found


def _worst_ranks(label: LabelVerdict) -> set[int]:
    energies = {v.rank: v.stats.sum_dd for v in label.ranks if v.status in WRONG and v.stats is not None}
    return set(sorted(energies, key=lambda rank: (-energies[rank], rank))[:MOST_RANKS_FITTED])


def _rms(stats: PairStats) -> float:
    """Root mean square of golden, or of actual where golden is 0; the largest value where squares leave float64."""
    for squares, largest in ((stats.sum_xx, (stats.min_x, stats.max_x)), (stats.sum_yy, (stats.min_y, stats.max_y))):
        if squares > 0.0 and isfinite(squares):
            return sqrt(squares / stats.n_finite)
        size = max(map(abs, largest))
        if size > 0.0 and isfinite(size):
            return size
    return 1.0


def _after_collectives(plan: Plan, judgement: Judgement) -> set[LabelKey]:
    """Labels of which all ranks hold the same, after one that is right and of which each rank holds another part."""
    sliced = {label.key: _are_slices(label.pairs) for label in plan.labels}
    verdicts = judgement.labels
    return {
        here.key
        for before, here in pairwise(verdicts)
        if before.key.task == here.key.task
        and before.status in (Status.MATCH, Status.DRIFT)
        and sliced.get(before.key) is True
        and sliced.get(here.key) is False
    }


def _are_slices(pairs: Sequence[Pair]) -> bool | None:
    """Whether ranks hold different parts of a whole; None on fewer than two ranks."""
    regions: dict[int, set[object]] = {}
    for pair in pairs:
        regions.setdefault(pair.rank, set()).add((pair.region, pair.more_actual != ()))
    if len(regions) < 2:
        return None
    first, *others = regions.values()
    return any(each != first for each in others)

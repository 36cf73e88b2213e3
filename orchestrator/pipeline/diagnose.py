"""A second look at what does not match: where its error sits, what it looks like. Pure but for `compare` and `look`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice, pairwise
from math import isfinite, sqrt
from typing import NamedTuple

from aclcmp.orchestrator.compare.diagnosis.excerpt import excerpt_of
from aclcmp.orchestrator.core.diagnosis import Hint, Look, Looks, Pattern, Suspect
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Basis, PairStats
from aclcmp.orchestrator.core.verdicts import WRONG, Judgement, LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.judge.error_patterns import pattern_of
from aclcmp.orchestrator.judge.hints import hints_of
from aclcmp.orchestrator.judge.noise import noise_of
from aclcmp.orchestrator.pipeline.exchanged_blocks import WRONG_BLOCKS, exchanged_block_hints
from aclcmp.orchestrator.pipeline.exchanged_labels import exchanged_label_hints
from aclcmp.orchestrator.pipeline.exchanged_slices import exchanged_slice_hints
from aclcmp.orchestrator.pipeline.missing_reductions import missing_reduction_hints
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

MOST_LOOKS = 256
"""Most (label, rank) that are looked at again, the most telling ones."""
MOST_FITTED = 32
"""Most labels on which fits are tried: the first in golden order that are wrong by themselves."""
MOST_RANKS_FITTED = 16
"""Most ranks of one label on which fits are tried: those with the largest errors."""
NOT_WHOLE = "only a summary of a part was kept"
"""Why a pair that was compared by values gets no second look."""

_Candidate = tuple[LabelVerdict, RankVerdict]


class DiagnosisResult(NamedTuple):
    """The looks at each (label, rank); patterns and hints of labels that are wrong by themselves, in golden order."""

    looks: dict[tuple[LabelKey, int], Look]
    patterns: tuple[Pattern, ...]
    hints: tuple[Hint, ...]


NO_DIAGNOSIS = DiagnosisResult({}, (), ())


def diagnose(
    plan: Plan,
    judgement: Judgement,
    compare: Compare,
    look: Callable[[Sequence[Suspect]], Looks],
    hosts: Mapping[int, str] | None = None,
    *,
    most_looks: int = MOST_LOOKS,
    asked: Collection[LabelKey] | None = None,
) -> DiagnosisResult:
    """Look again at (label, rank) that do not match; say where their errors sit, and what they look like.

    `compare` and `look` may leave out what was interrupted; after Ctrl-C at any other moment there is no diagnosis.
    `hosts` are by rank, as far as known. Pairs that were compared by summaries get no second look. Where labels are
    `asked` for, it looks at no others, and is about them instead of those that are wrong by themselves.
    """
    labels = [label for label in judgement.labels if asked is None or label.key in asked]
    chosen = list(filter(_is_own, labels)) if asked is None else labels
    candidates = _most_telling_first(judgement, suspicious(labels))
    try:
        return _diagnose(plan, judgement, compare, look, hosts or {}, chosen, candidates, most_looks)
    except KeyboardInterrupt:
        return NO_DIAGNOSIS


def _diagnose(
    plan: Plan,
    judgement: Judgement,
    compare: Compare,
    look: Callable[[Sequence[Suspect]], Looks],
    hosts: Mapping[int, str],
    own: Sequence[LabelVerdict],
    candidates: Sequence[_Candidate],
    most_looks: int,
) -> DiagnosisResult:
    noise = noise_of(judgement.labels, [label.key for label in own])
    suspects = list(islice(_suspects(plan, candidates, own, noise), most_looks))
    results = look(suspects) if suspects else {}
    looks = {name: each for name, each in results.items() if isinstance(each, Look)}
    by_label: dict[LabelKey, dict[int, Look]] = {label.key: {} for label in own}
    for (key, rank), each in looks.items():
        by_label.setdefault(key, {})[rank] = each
    names = {label.key: label.names_of_rows for label in plan.labels}
    after = _labels_after_collectives(plan, judgement)
    patterns = tuple(
        pattern_of(
            label,
            by_label[label.key],
            hosts,
            noise[label.key],
            after_collective=label.key in after,
            names=names.get(label.key),
        )
        for label in own
    )
    interrupted = len(results) < len(suspects)
    sums = {} if interrupted else missing_reduction_hints(plan, own[:MOST_FITTED], compare)
    others = {} if interrupted else exchanged_label_hints(plan, own, compare, judgement.labels)
    unknown = [label for label in own if label.key not in others]
    slices = {} if interrupted else exchanged_slice_hints(plan, unknown, compare)
    blocks = {} if interrupted else exchanged_block_hints(plan, unknown, compare)
    hints: list[Hint] = []
    for label in own:
        proven = (*others.get(label.key, ()), *slices.get(label.key, ()), *blocks.get(label.key, ()))
        known = {rank for hint in proven if hint.kind != WRONG_BLOCKS for rank in hint.ranks}
        left = {rank: look for rank, look in by_label[label.key].items() if rank not in known}
        hints += (*sums.get(label.key, ()), *proven)
        hints += hints_of(label, left, noise[label.key], names.get(label.key))
    return DiagnosisResult(looks, patterns, tuple(hints))


def _is_own(label: LabelVerdict) -> bool:
    return any(verdict.status in WRONG and verdict.origin is Origin.OWN for verdict in label.ranks)


def _suspects(
    plan: Plan,
    candidates: Sequence[_Candidate],
    own: Sequence[LabelVerdict],
    noise: Mapping[LabelKey, Mapping[int, float]],
) -> Iterator[Suspect]:
    """Yield what to look at again, in the order of the candidates, with what fits are tried on."""
    pairs_of = {
        (label.key, rank): tuple(pairs)
        for label in plan.labels
        for rank, pairs in groupby(label.pairs, lambda pair: pair.rank)
    }
    ranks_to_fit = {label.key: _worst_ranks(label) for label in own[:MOST_FITTED]}
    for label, verdict in candidates:
        pairs, stats = pairs_of.get((label.key, verdict.rank), ()), verdict.stats
        if not pairs or stats is None or not all(pair.is_whole for pair in pairs):
            continue
        excerpt = excerpt_of(pairs, stats.rows) if verdict.rank in ranks_to_fit.get(label.key, ()) else ()
        size = noise.get(label.key, {}).get(verdict.rank, 0.0)
        yield Suspect(pairs, _rms(stats), excerpt, size, _worst_row(verdict, stats, pairs[0].whole_shape))


def suspicious(labels: Iterable[LabelVerdict]) -> list[_Candidate]:
    """Return what does not match and was compared by values, in golden order."""
    return [
        (label, verdict)
        for label in labels
        for verdict in label.ranks
        if verdict.status in (*WRONG, Status.DRIFT)
        and verdict.stats is not None
        and verdict.stats.basis is Basis.VALUES
    ]


def _most_telling_first(judgement: Judgement, candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Sort: the first divergence, other own errors, other wrong ones, drift; in golden order within each."""
    first = judgement.first_divergence

    def grade(candidate: _Candidate) -> tuple[bool, ...]:
        label, verdict = candidate
        is_first = first is not None and label.key == first.key
        return verdict.status not in WRONG, not is_first, verdict.origin is not Origin.OWN

    return sorted(candidates, key=grade)


def _worst_ranks(label: LabelVerdict) -> set[int]:
    energies = {v.rank: v.stats.sum_dd for v in label.differing if v.stats is not None}
    return set(sorted(energies, key=lambda rank: (-energies[rank], rank))[:MOST_RANKS_FITTED])


def _worst_row(verdict: RankVerdict, stats: PairStats, whole_shape: tuple[int, ...]) -> int:
    """Return the number of the worst row, or that of the largest error where rows were summed in groups.

    -1 where values are not finite, whose places only a second look tells.
    """
    if verdict.status is Status.NONFINITE:
        return -1
    if verdict.metrics is not None and stats.rows.group == 1 and verdict.metrics.worst_row_index >= 0:
        return verdict.metrics.worst_row_index
    return -1 if stats.max_abs_d_index < 0 else stats.max_abs_d_index // max(whole_shape[-1:] or (1,))


def _rms(stats: PairStats) -> float:
    """Return golden's root mean square, or actual's where golden is 0; the largest value where squares overflow."""
    for squares, largest in ((stats.sum_xx, (stats.min_x, stats.max_x)), (stats.sum_yy, (stats.min_y, stats.max_y))):
        if squares > 0.0 and isfinite(squares):
            return sqrt(squares / stats.n_finite)
        size = max(map(abs, largest))
        if size > 0.0 and isfinite(size):
            return size
    return 1.0


def _labels_after_collectives(plan: Plan, judgement: Judgement) -> set[LabelKey]:
    """Return labels of which all ranks hold the same, and of whose predecessor, which is right, each holds a slice."""
    sliced = {label.key: _are_slices(label.pairs) for label in plan.labels}
    return {
        here.key
        for before, here in pairwise(judgement.labels)
        if before.key.task == here.key.task
        and before.status in (Status.MATCH, Status.DRIFT)
        and sliced.get(before.key) is True
        and sliced.get(here.key) is False
    }


def _are_slices(pairs: Sequence[Pair]) -> bool | None:
    """Tell whether ranks hold different parts of a whole; None on fewer than two ranks."""
    regions: dict[int, set[object]] = {}
    for pair in pairs:
        regions.setdefault(pair.rank, set()).add((pair.region, pair.more_actual != ()))
    if len(regions) < 2:
        return None
    first, *others = regions.values()
    return any(each != first for each in others)

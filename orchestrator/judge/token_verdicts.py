"""Verdicts on tokens: whether noise explains that golden and actual choose different ones.

Golden prefers a to b by a margin; actual, which chooses b, has moved that difference by a shift. Where the reference's
logits of both are known, the shift is that from the reference, else from golden, which has noise of its own. What right
computations move it by is noise: a shift within it is a tie, in a row of which no more than noise is off; any other is
a wrong token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import isnan
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from aclcmp.labeling.shard.margin_table import Margin
from aclcmp.orchestrator.core.choices import SIDES, Floats, RowChoices
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.margins import Shares
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, RowNames
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.text import count
from aclcmp.orchestrator.core.tokens import Holder, Token, TokenEvidence, TokenState, TokenVerdicts
from aclcmp.orchestrator.core.verdicts import WRONG, LabelVerdict, RankVerdict, Status, changed
from aclcmp.orchestrator.judge.dtype_limits import round_off_of

SHIFT = 6.0
"""Most standard deviations of golden's noise in a logit by which a right actual side moves the difference of two."""
ROW = 2.0
"""Most of golden's noise in a row of logits that a right actual side has beside golden."""
MeasuredNoise = tuple[FloorSource, Plan, Outcomes]
Labels = Sequence[tuple[LabelKey, Sequence[RankVerdict]]]
NO_SHARES: Shares = {}


def collect_tokens(
    plan: Plan, outcomes: Outcomes, floors: Sequence[MeasuredNoise], shares: Shares = NO_SHARES
) -> tuple[TokenEvidence, ...]:
    """Return the evidence on all logits.

    `floors` are right computations of golden's that were compared; `shares` tell which part of the model moved a
    margin.
    """
    found = []
    for label in plan.labels:
        for holders, choices in _whole_rows(label, outcomes):
            assert label.rows is not None
            noise = _noise_of(label.key, label.rows, choices, floors if _has_noise_of_golden(label) else ())
            found.append(TokenEvidence(label.key, holders, _tokens(label.rows, choices, noise, shares), noise.source))
    return tuple(found)


def _has_noise_of_golden(label: LabelPlan) -> bool:
    """Tell whether actual's type is no narrower than golden's: else golden's noise says nothing of actual's."""
    pair = label.pairs[0]
    return round_off_of(pair.golden.dtype, pair.golden.dtype) == round_off_of(pair.golden.dtype, pair.actual.dtype)


def _whole_rows(label: LabelPlan, outcomes: Outcomes) -> Iterator[tuple[tuple[Holder, ...], RowChoices]]:
    """Yield what rows of logits choose, with the ranks that hold them.

    Ranks with the whole vocabulary each choose for themselves, those with slices of it together: of what several hold
    the first counts, and rows that they do not hold whole are left out.
    """
    of_ranks = list(_choices_of_ranks(label, outcomes))
    if label.rows is None or not of_ranks:  # most labels are no logits, and some have no second dimension
        return
    spans = _Spans(label)
    holders: list[Holder] = []
    together: RowChoices | None = None
    for rank, pairs, choices in of_ranks:
        own = [Holder(rank, *span) for span in dict.fromkeys((p.region.start[1], p.region.end[1]) for p in pairs)]
        if all(pair.region.shape[1] == pair.whole_shape[1] for pair in pairs):
            yield tuple(own), choices
        elif spans.take(pairs):
            holders += own
            together = choices if together is None else together.merge(choices)
    if together is not None:
        whole = together.table[spans.taken[together.table["row"]].all(axis=1)]
        if whole.size:
            yield tuple(holders), RowChoices(whole)


def _choices_of_ranks(label: LabelPlan, outcomes: Outcomes) -> Iterator[tuple[int, list[Pair], RowChoices]]:
    """Yield the ranks that hold logits of a label, with their pairs and what the rows of these choose."""
    for rank, group in groupby(label.pairs, attrgetter("rank")):
        stats = outcomes.get((label.key, rank))
        choices = stats.choices if isinstance(stats, PairStats) else None
        if choices is not None and choices.table.size:
            yield rank, list(group), choices


class _Spans:
    """Parts of the rows of logits that are taken, by the spans into which the ends of all parts cut the vocabulary."""

    def __init__(self, label: LabelPlan) -> None:
        assert label.rows is not None
        ends = {end for pair in label.pairs for end in (pair.region.start[1], pair.region.end[1], pair.whole_shape[1])}
        self._ends = np.array(sorted(ends | {0}))
        self.taken = np.zeros((len(label.rows.table), len(self._ends) - 1), np.bool_)
        """By row and span."""

    def take(self, pairs: Sequence[Pair]) -> bool:
        """Take the parts of a rank, unless some of it is taken already; tell whether they were taken."""
        parts = [
            (pair.region.slices[0], slice(*np.searchsorted(self._ends, (pair.region.start[1], pair.region.end[1]))))
            for pair in pairs
        ]
        if any(self.taken[part].any() for part in parts):
            return False
        for part in parts:
            self.taken[part] = True
        return True


def _tokens(names: RowNames, choices: RowChoices, noise: _Noise, shares: Shares) -> tuple[Token, ...]:
    """Return the tokens that rows choose, by request and position."""
    rows = choices.table["row"]
    numbers, positions, before = names.table[rows].T.tolist()
    taken = [-1] * len(rows) if names.following is None else names.following[rows].tolist()
    prompts = names.prompts or (0,) * len(names.requests)
    golden, actual = (choices.table[f"{side}_i"][:, 0] for side in SIDES)
    moved = np.where(choices.moved_golden, golden, actual)
    shift = choices.shift + noise.off
    figures = (
        choices.margin,
        shift,
        choices.spread,
        choices.gap,
        choices.kl,
        choices.overlap,
        choices.size,
        noise.spread,
    )
    found = [
        (number, Token(names.requests[number], place + 1, place + 1 < prompts[number], *rest))
        for number, place, *rest in zip(
            numbers,
            positions,
            before,
            golden.tolist(),
            actual.tolist(),
            moved.tolist(),
            taken,
            *(each.tolist() for each in figures),
            strict=True,
        )
    ]
    found.sort(key=lambda each: (each[0], each[1].position))
    if not shares:
        return tuple(token for _, token in found)
    goldens = names.goldens or names.requests
    return tuple(
        replace(token, shares=shares.get(Margin(goldens[number], token.position, token.golden, token.actual), ()))
        for number, token in found
    )


_RowName = tuple[str, int, int]
"""Golden's name of the request, position, token."""


class _MeasuredRow(NamedTuple):
    """Golden's noise in one row."""

    spread: float
    off: Mapping[int, float]
    """By id of golden's best tokens: the reference's logit less golden's."""


class _Noise(NamedTuple):
    """Golden's noise in the rows of logits, of shape (r,) each."""

    spread: Floats
    """Standard deviation over the vocabulary, nan where nobody measured it."""
    off: Floats
    """The reference's difference of the two best tokens less golden's, 0 where it is not known."""
    source: FloorSource | None


def _noise_of(key: LabelKey, names: RowNames, choices: RowChoices, floors: Sequence[MeasuredNoise]) -> _Noise:
    """Return the noise of each row by the best source that has the label; that of no row is less than the median."""
    rows = len(choices.table)
    best = [choices.table[f"{side}_i"][:, 0].tolist() for side in SIDES]
    for source in FloorSource:
        measured: dict[_RowName, _MeasuredRow] = {}
        for _, plan, outcomes in (floor for floor in floors if floor[0] is source):
            if (label := next((each for each in plan.labels if each.key == key), None)) is not None:
                measured = _larger(measured, _measured_rows(label, outcomes))
        found = [measured.get(name) for name in zip(*_named(names, choices), strict=True)]
        spread = np.array([np.nan if row is None else row.spread for row in found])
        if np.isnan(spread).all():
            continue
        off = np.zeros(rows)
        if source in (FloorSource.REFERENCE, FloorSource.QUANTISED):
            for number, (row, golden, actual) in enumerate(zip(found, *best, strict=True)):
                if row is not None and golden in row.off and actual in row.off:
                    off[number] = row.off[golden] - row.off[actual]
        return _Noise(np.fmax(spread, np.nanmedian(spread)), np.where(np.isfinite(off), off, 0.0), source)
    return _Noise(np.full(rows, np.nan), np.zeros(rows), None)


def _larger(one: dict[_RowName, _MeasuredRow], other: dict[_RowName, _MeasuredRow]) -> dict[_RowName, _MeasuredRow]:
    """Return the rows of two samples, of each the noisier."""
    noisier = {name: row for name, row in other.items() if name not in one or row.spread > one[name].spread}
    return one | noisier


def _measured_rows(label: LabelPlan, outcomes: Outcomes) -> dict[_RowName, _MeasuredRow]:
    """Return the noise of the rows of a floor's label, of several rows of one name the largest."""
    found: dict[_RowName, _MeasuredRow] = {}
    for _, choices in _whole_rows(label, outcomes):
        assert label.rows is not None
        table = choices.table  # in it golden stands as actual, beside the reference
        off = (table["actual_x"] - table["actual_y"]).tolist()
        names = zip(*_named(label.rows, choices), strict=True)
        for name, spread, ids, each in zip(
            names, choices.spread.tolist(), table["actual_i"].tolist(), off, strict=True
        ):
            if name not in found or spread > found[name].spread:
                found[name] = _MeasuredRow(spread, dict(zip(ids, each, strict=True)))
    return found


def _named(names: RowNames, choices: RowChoices) -> tuple[list[str], list[int], list[int]]:
    requests, positions, tokens = names.table[choices.table["row"]].T.tolist()
    goldens = names.goldens or names.requests
    return [goldens[number] for number in requests], positions, tokens


def judge_tokens(labels: Labels, tokens: Iterable[TokenEvidence]) -> tuple[Labels, list[TokenVerdicts]]:
    """Judge all tokens; where one is wrong its label diverges on that rank, whatever its errors are."""
    by_rank = {(each.key, rank): each for each in tokens for rank in each.ranks}
    if not by_rank:
        return labels, []
    found: dict[int, TokenVerdicts] = {}
    judged = []
    for key, ranks in labels:
        verdicts = []
        for verdict in ranks:
            if evidence := by_rank.get((key, verdict.rank)):
                if id(evidence) not in found:
                    found[id(evidence)] = _judge(evidence, verdict)
                verdict = _with_tokens(verdict, found[id(evidence)])
            verdicts.append(verdict)
        judged.append((key, verdicts))
    return judged, list(found.values())


def let_behind_ties(tokens: Sequence[TokenVerdicts], labels: Sequence[LabelVerdict]) -> tuple[TokenVerdicts, ...]:
    """Return the verdicts with those tokens as ties whose label only drifts: it is behind ids that flipped in a tie."""
    status = {
        (label.key, verdict.rank): verdict.status for label in labels for verdict in (label.ranks if tokens else ())
    }

    def drifts(each: TokenVerdicts) -> bool:
        found = {status.get((each.evidence.key, rank)) for rank in each.evidence.ranks}
        return Status.DRIFT in found and not found & {*WRONG}

    return tuple(
        replace(
            each,
            states=[TokenState.TIE if state is TokenState.WRONG else state for state in each.states],
            source=f"{each.source}, and ids that flipped in a tie before it",
        )
        if TokenState.WRONG in each.states and drifts(each)
        else each
        for each in tokens
    )


def _judge(evidence: TokenEvidence, verdict: RankVerdict) -> TokenVerdicts:
    warn = verdict.limits.warn if verdict.limits is not None else 0.0
    source = (
        f"the limit that warns, {warn:.2g} of the logits' size"
        if evidence.source is None
        else f"{SHIFT:g} x {evidence.source.value} noise"
    )
    states, noise = [], []
    for token in evidence.tokens:
        measured = not isnan(token.noise)
        noise.append(SHIFT * token.noise if measured else warn * token.size)
        row = ROW * token.noise if measured else warn * token.size
        explained = token.shift <= noise[-1] and token.off <= row
        same = token.golden == token.actual
        states.append(TokenState.SAME if same else TokenState.TIE if explained else TokenState.WRONG)
    return TokenVerdicts(evidence, states, noise, source)


def _with_tokens(verdict: RankVerdict, tokens: TokenVerdicts) -> RankVerdict:
    """Return the verdict on logits with what those tokens say whose logit is off on this rank."""
    spans = [range(begin, end) for rank, begin, end in tokens.evidence.holders if rank == verdict.rank]
    wrong = [
        (token, noise)
        for token, state, noise in tokens
        if state is TokenState.WRONG and any(token.moved in span for span in spans)
    ]
    if not wrong:
        return verdict
    words = f"{len(wrong):,} of {count(len(tokens.states), 'token')} wrong, the first: {_words(*wrong[0])}"
    if verdict.status not in (Status.MATCH, Status.DRIFT, Status.MISSING):
        return changed(verdict, reason=f"{verdict.reason}; {words}")
    margin = max([verdict.margin or 0.0, *(token.shift / noise for token, noise in wrong if noise > 0.0)])
    return changed(verdict, status=Status.DIVERGED, margin=margin, reason=f"{words}; {verdict.reason}")


def _words(token: Token, noise: float) -> str:
    request = f"request {token.request}, " if token.request else ""
    return (
        f"{request}position {token.position}, {token.actual} instead of {token.golden}, margin {token.margin:.2g}, "
        f"moved by {token.shift:.2g}, noise {noise:.2g}, the row's logits off by {token.off:.2g}"
    )

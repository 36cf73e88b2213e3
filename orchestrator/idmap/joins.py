"""Find labels that are together one of the other side, by the first rows and columns of their tensors.

What is found are candidates: `pipeline/suggest_map.py` compares them under their rules before they are proposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import TypeVar

import numpy as np

from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.layout import divisors
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.idmap.matching import match_forms
from aclcmp.orchestrator.idmap.sampling import Labels, exchange_first, exchanged_places, numbers_of
from aclcmp.orchestrator.idmap.signatures import AGREE, Numbers, distances, without_ones
from aclcmp.orchestrator.idmap.similarity import Form
from aclcmp.orchestrator.plan.id_rules import MOST_STARS, JoinRule, needs_quotes, stars
from aclcmp.orchestrator.plan.joined_labels import part_sizes
from aclcmp.orchestrator.plan.rank_labels import RankLabel

Found = TypeVar("Found")

_ROWS, _COLUMNS = 16, 32
"""Rows and columns of a corner."""
_TELLING = 32
"""Corners of fewer different values prove nothing."""
_SURE = 0.01
"""A label that is nearer than this to a single one of the other side is that one: only coarser round-off is beyond."""
_NEARER = 3
"""A join is so many times nearer than any single label: otherwise a small summand would be one by chance."""
_ROUND_OFF = 1e-6
_MOST_PARTS = 8
_MOST_TRIED = 16
"""Ways to lay others side by side that are compared: where ranks share heads, the first columns leave several open."""
_MOST_SUMMANDS = 64
"""Labels of one shape of which all pairs are tried."""


@dataclass(frozen=True, slots=True)
class JoinCandidate:
    """Forms of both sides, of which the several of one side may together be the one of the other."""

    golden: tuple[Form, ...]
    actual: tuple[Form, ...]
    how: str
    """As in JoinRule."""
    rivals: bool
    """True if another form has the same values as one of the several."""

    @property
    def numbers(self) -> list[tuple[int, ...]]:
        """The numbers of the labels that all forms have, in golden order."""
        first, *others = (*self.golden, *self.actual)
        return [numbers for numbers in first.labels if all(numbers in form.labels for form in others)]

    @property
    def name(self) -> float:
        """Similarity of the names: the mean share of words that the one has in common with each of the several."""
        (one,), several = sorted((self.golden, self.actual), key=len)
        return sum(_common(one, each) for each in several) / len(several)

    @property
    def rule(self) -> JoinRule | None:
        """The rule, with stars if it is for several labels; None where no rule can express it."""
        numbers = self.numbers
        goldens, actuals = (
            tuple(form.text if len(numbers) > 1 else form.labels[numbers[0]].data_id for form in forms)
            for forms in (self.golden, self.actual)
        )
        texts = (*goldens, *actuals)
        counts = {stars(text) for text in texts}
        if len(counts) > 1 or max(counts) > MOST_STARS or any(map(needs_quotes, texts)):
            return None
        return JoinRule(goldens, actuals, self.how)


@dataclass(frozen=True, slots=True, eq=False)
class _Corner:
    """The first rows and columns of a label's tensor on its first rank: there the first ones of the whole lie."""

    form: Form
    values: Numbers
    columns: int
    """Columns of that rank's tensor."""
    ranks: int


def find_joins(
    golden: Labels,
    actual: Labels,
    theirs: Sequence[Form],
    ours: Sequence[Form],
    prove: Callable[[JoinCandidate, JoinRule], Found | None],
) -> list[Found]:
    """Return what `prove` makes of joins between the forms of two sides, each form in one at most.

    `golden` and `actual` are the tensors of the labels. Forms that match a single one by their values take no part.
    Of each form the first label is looked at that the others also have. Time grows with the number of forms of one
    side times that of the other, and for sums with the square of the latter.
    """
    sure = [
        match for match in match_forms(theirs, ours) if _nearest(theirs[match.golden], [ours[match.actual]]) <= _SURE
    ]
    golden_side, actual_side = (
        _Side(tensors, {form.text: form for number, form in enumerate(forms) if number not in taken})
        for tensors, forms, taken in (
            (golden, theirs, {match.golden for match in sure}),
            (actual, ours, {match.actual for match in sure}),
        )
    )
    found: list[Found] = []
    for one_is_golden in (True, False):
        mine, other = (golden_side, actual_side) if one_is_golden else (actual_side, golden_side)
        own, everyone = (theirs, ours) if one_is_golden else (ours, theirs)
        for one in [form for form in mine.free.values() if not _nearest(form, everyone) <= _SURE]:
            for how, several, rivals in _joins_of(one, mine, other):
                goldens, actuals = ((one,), several) if one_is_golden else (several, (one,))
                candidate = JoinCandidate(goldens, actuals, how, rivals)
                # parts get the names of the several, on the side of the one, and a sum the other way about
                named, replaced, there = (several, (one,), own) if how == "|" else ((one,), several, everyone)
                is_free = not {form.text for form in named} & {form.text for form in there} - {x.text for x in replaced}
                rule = candidate.rule if is_free else None
                if rule is not None and (proved := prove(candidate, rule)) is not None:
                    found.append(proved)
                    del mine.free[one.text]
                    for form in several:
                        del other.free[form.text]
                    break
    return found


def _nearest(form: Form, others: Sequence[Form]) -> float:
    """Return the distance of a form's first label to the nearest one with the same numbers; NaN if nothing is known."""
    numbers, label = next(iter(form.labels.items()))
    there = [other.labels[numbers].signatures for other in others if numbers in other.labels]
    found = distances([label.signatures], there) if there else np.empty(0)
    return float(np.nanmin(found)) if (~np.isnan(found)).any() else math.nan


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    tensors: Labels
    free: dict[str, Form]
    """The forms that are not matched, by their text."""
    _corners: dict[str, _Corner | None] = field(default_factory=dict)

    def corner(self, form: Form, numbers: tuple[int, ...]) -> _Corner | None:
        """Return the corner of a form's label; None where it has none, or one that proves nothing."""
        label = form.labels.get(numbers)
        if label is None:
            return None
        if label.data_id not in self._corners:
            ranks = self.tensors.get(label.data_id, {})
            values = _beginning(ranks, _COLUMNS)
            self._corners[label.data_id] = None
            if values is not None and np.unique(values).size >= _TELLING:
                self._corners[label.data_id] = _Corner(form, values, ranks[min(ranks)].shape[-1], len(ranks))
        return self._corners[label.data_id]


def _joins_of(one: Form, mine: _Side, other: _Side) -> Iterator[tuple[str, tuple[Form, ...], bool]]:
    """Yield how forms of the other side are together one, these forms, and whether they have rivals."""
    for numbers, label in one.labels.items():
        there = [corner for form in other.free.values() if (corner := other.corner(form, numbers)) is not None]
        ranks = mine.tensors.get(label.data_id, {})
        for exchanged in (False, True) if len(there) > 1 else ():
            whole = _beginning(ranks, math.inf, exchanged)
            if whole is None:
                continue
            corner = _Corner(one, whole[:, :_COLUMNS], whole.shape[1], len(ranks))
            for how, found in (("|", _cover(whole, corner, there)), ("+", _add_up(corner, there))):
                for several, rivals in islice(found, _MOST_TRIED):
                    yield how, tuple(each.form for each in several), rivals
        if there:
            return


def _beginning(ranks: Mapping[int, RankLabel], most: float, exchanged: bool = False) -> Numbers | None:
    """Return the first rows and up to `most` columns of the first rank's tensor; None if it has none, or no floats.

    With `exchanged`, of the tensor with its first two dimensions of more than one exchanged, None if these are all.
    """
    label = ranks[min(ranks)] if ranks else None
    if label is None or not label.source.is_whole or label.in_blocks or DTYPES[label.dtype].kind is not Kind.FLOAT:
        return None
    *lead, columns = label.shape or (0,)
    shape = min(math.prod(lead), _ROWS), int(min(columns, most))
    if not lead or not math.prod(shape):
        return None
    places = (np.arange(shape[0])[:, None] * columns + np.arange(shape[1])).ravel()
    if exchanged:
        seen = without_ones(label.shape)
        if len(seen) < 3:
            return None
        places = exchanged_places(places, exchange_first(seen))
    try:
        return numbers_of(label, places).reshape(shape)
    except (AclcmpError, OSError):
        return None


def _cover(whole: Numbers, one: _Corner, others: Sequence[_Corner]) -> Iterator[tuple[list[_Corner], bool]]:
    """Yield those that may lie side by side in one, from its first column to its last, and whether they have rivals."""

    def extend(begin: int, chosen: list[tuple[_Corner, int]], rivals: bool) -> Iterator[tuple[list[_Corner], bool]]:
        if begin == one.columns:
            several = [corner for corner, _ in chosen]
            columns, sizes = [corner.columns for corner in several], [size for _, size in chosen]
            if len(several) > 1 and part_sizes(one.columns, columns, one.ranks, several[0].ranks) == sizes:
                yield several, rivals
            return
        free = [corner for corner in others if all(corner is not other for other, _ in chosen)]
        parts = [
            (_apart_from_beginning(whole[:, begin : begin + size], corner.values), corner, size)
            for corner in (free if len(chosen) < _MOST_PARTS else ())
            for size in _widths(corner, one.ranks)
            if begin + size <= one.columns
        ]
        limit = min(_NEARER * np.nanmin([*(apart for apart, _, _ in parts), math.inf]) + _ROUND_OFF, AGREE)
        near = [(corner, size) for apart, corner, size in parts if apart <= limit]
        alike = len({corner.form.text for corner, _ in near}) > 1
        for part in sorted(near, key=lambda part: -_common(one.form, part[0].form)):
            yield from extend(begin + part[1], [*chosen, part], rivals or alike)

    return extend(0, [], False)


def _apart_from_beginning(one: Numbers, other: Numbers) -> float:
    """Return the distance of two corners as far as both go."""
    rows, columns = map(min, zip(one.shape, other.shape, strict=True))
    return float(_apart(one[:rows, :columns], other[None, :rows, :columns])[0])


def _widths(corner: _Corner, ranks: int) -> list[int]:
    """Return the columns that a tensor may have as a part of another one that lies on so many ranks."""
    shares = {Fraction(theirs, ours) for theirs in divisors(corner.ranks) for ours in divisors(ranks)}
    return sorted({int(size) for share in shares if (size := corner.columns * share).denominator == 1}, reverse=True)


def _add_up(one: _Corner, others: Sequence[_Corner]) -> Iterator[tuple[list[_Corner], bool]]:
    """Yield the two whose sum is one, as they were recorded, and whether they have rivals."""
    rows = len(one.values)
    alike = [each for each in others if len(each.values) == rows and one.columns in _widths(each, one.ranks)]
    if not 1 < len(alike) <= _MOST_SUMMANDS:
        return
    columns = min(each.values.shape[1] for each in (one, *alike))
    values = np.stack([each.values[:, :columns] for each in alike])
    whole = one.values[:, :columns]
    single = np.nanmin([*_apart(whole, values), 1.0])
    apart = np.stack([_apart(whole, values + each) for each in values])
    apart[np.tril_indices(len(alike))] = np.nan
    best = np.nanmin([*apart.ravel(), math.inf])
    if best <= min(AGREE, single / _NEARER):
        near = [[alike[place] for place in pair] for pair in np.argwhere(apart <= _NEARER * best + _ROUND_OFF)]
        yield max(near, key=lambda pair: sum(_common(one.form, each.form) for each in pair)), len(near) > 1


def _apart(one: Numbers, others: Numbers) -> Numbers:
    """Return the distances of one corner from others, shape (n, rows, columns): medians over their rows.

    A row's distance is |x - y| over the smaller of |x - mean x| and |y - mean y|. The whole's would be that of one
    massive row. It is NaN where few rows vary.
    """
    varied = np.minimum(*(np.square(side - side.mean(-1, keepdims=True)).sum(-1) for side in (one, others)))
    with np.errstate(all="ignore"):
        by_row = np.sqrt(np.square(one - others).sum(-1) / varied)
    by_row[~(varied > 0)] = np.nan
    few = 2 * np.isnan(by_row).sum(-1) > by_row.shape[-1]
    found: Numbers = np.median(np.where(np.isnan(by_row), math.inf, by_row), -1)
    found[few | (one.size < _TELLING)] = np.nan
    return found


def _common(one: Form, other: Form) -> float:
    return 2 * len(one.words & other.words) / max(len(one.words) + len(other.words), 1)

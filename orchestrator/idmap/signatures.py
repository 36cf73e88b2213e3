"""Signatures of labels' values, and the distance of two labels by their signatures.

Two labels are compared if their global tensors have as many elements: at the same flat places, so that neither the
split over ranks nor dimensions of size 1 matter; and by the spread of their values, which no order of elements changes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]

AGREE, DIFFER = 0.1, 0.5
"""Relative L2 up to which two labels count as the same, and from which as different.

Round-off stays below the former except for the coarsest float8; unrelated tensors are beyond 1. Values in between prove
nothing: they may be large round-off, or a residual stream one layer later.
"""
FEW = 1 << 14
"""Most elements of a global tensor that is read in full; the spread is known only for these."""

_STRETCHES, _STRETCH = 16, 64
_TELLING = 8
"""Tensors of fewer different values prove nothing: constants, masks, one-hot rows, scalars."""
_GROUPS = 32
_SPREAD = 0.2
_LARGEST = 1e150  # its square is a float64


@dataclass(frozen=True, slots=True, eq=False)
class ValueSignature:
    """Sampled values of a label under one layout of its global tensor."""

    shape: tuple[int, ...]
    """Shape of the global tensor, without dimensions of size 1."""
    sample: Numbers
    """Values at `places(n)` of the n elements, shape (m,), two for each complex element. NaN where unknown."""
    spread: Numbers | None
    """Exact means of all values in 32 groups by size, shape (32,). None for more than FEW elements, and for integers,
    where different tensors may be permutations of each other."""


def places(count: int) -> Places:
    """Return the flat places to sample: all up to 1,024, else 16 stretches of 64 neighbours (16 pages to read).

    The stretches are spread evenly, but each begins at another offset of its share, so that they lie in different
    columns.
    """
    if count <= _STRETCHES * _STRETCH:
        return np.arange(count)
    into = np.arange(1, _STRETCHES + 1) * (math.sqrt(5) - 1) / 2 % 1
    starts = ((np.arange(_STRETCHES) + into) * ((count - _STRETCH) / _STRETCHES)).astype(np.int64)
    return (starts[:, None] + np.arange(_STRETCH)).ravel()


def signature_of(shape: tuple[int, ...], numbers_at: Callable[[Places], Numbers]) -> ValueSignature | None:
    """Return the signature of a global tensor of `shape`; None if it would prove nothing.

    `numbers_at` returns the values at ascending flat places, shape (places, numbers for each element).
    """
    count = math.prod(shape)
    if count < _TELLING:
        return None
    spread = None
    if count <= FEW:
        numbers = numbers_at(np.arange(count))
        ascending = np.sort(numbers[_usable(numbers)])
        if ascending.size >= _GROUPS and (ascending != np.round(ascending)).any():
            cuts = np.arange(_GROUPS) * ascending.size // _GROUPS
            spread = np.add.reduceat(ascending, cuts) / np.diff(cuts, append=ascending.size)
        sample = numbers[places(count)].ravel()
    else:
        sample = numbers_at(places(count)).ravel()
    sample = np.where(_usable(sample), sample, np.nan)
    if np.unique(sample[_usable(sample)]).size < _TELLING:
        return None
    return ValueSignature(without_ones(shape), sample, spread)


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without dimensions of size 1, which do not change the order of elements."""
    return tuple(size for size in shape if size != 1)


def distances(golden: Sequence[Sequence[ValueSignature]], actual: Sequence[Sequence[ValueSignature]]) -> Numbers:
    """Return the relative L2 of each golden label (rows) to each actual one (columns), given the signatures of each.

    Of several signatures the nearest ones count. The distance is NaN where nothing can be said: if no global tensors
    have as many elements, or if values differ and shapes too, since the order may be another. It is AGREE for labels
    whose values are in another order, but whose spreads are more alike than by chance.
    """
    found = np.full((len(golden), len(actual)), np.nan)
    ours = _by_size(actual)
    for size, rows in _by_size(golden).items():
        columns = ours.get(size, [])
        if not columns:
            continue
        theirs, others = [signature for _, signature in rows], [signature for _, signature in columns]
        distance = _relative_l2(*(np.stack([signature.sample for signature in side]) for side in (theirs, others)))
        number = {shape: n for n, shape in enumerate({signature.shape for signature in theirs + others})}
        shapes = [np.array([number[signature.shape] for signature in side]) for side in (theirs, others)]
        distance[(shapes[0][:, None] != shapes[1][None, :]) & (distance > AGREE)] = np.nan
        distance = np.where((distance <= AGREE) | ~_spread_alike(theirs, others, size[0]), distance, AGREE)
        labels = np.ix_([label for label, _ in rows], [label for label, _ in columns])
        np.fmin.at(found, labels, distance)
    return found


def _by_size(labels: Sequence[Sequence[ValueSignature]]) -> dict[tuple[int, int], list[tuple[int, ValueSignature]]]:
    """Group signatures, with the number of their label, by their numbers of elements and of sampled numbers."""
    found: dict[tuple[int, int], list[tuple[int, ValueSignature]]] = defaultdict(list)
    for number, signatures in enumerate(labels):
        for signature in signatures:
            found[math.prod(signature.shape), signature.sample.size].append((number, signature))
    return found


def _usable(numbers: Numbers) -> npt.NDArray[np.bool_]:
    """Return which values can be computed with: NaN and values beyond 1e150 cannot."""
    usable: npt.NDArray[np.bool_] = np.abs(numbers) < _LARGEST
    return usable


def _spread_alike(
    golden: Sequence[ValueSignature], actual: Sequence[ValueSignature], count: int
) -> npt.NDArray[np.bool_]:
    """Return which pairs have spreads that differ less than those of two samples of `count` values."""
    alike = np.zeros((len(golden), len(actual)), bool)
    rows, columns = (
        [n for n, signature in enumerate(side) if signature.spread is not None] for side in (golden, actual)
    )
    if rows and columns:
        spreads = [
            np.stack([spread for signature in side if (spread := signature.spread) is not None])
            for side in (golden, actual)
        ]
        alike[np.ix_(rows, columns)] = _relative_l2(*spreads) < _SPREAD / math.sqrt(count)
    return alike


def _relative_l2(golden: Numbers, actual: Numbers) -> Numbers:
    """Return |x - y| over the smaller of |x - mean x| and |y - mean y| for rows x and y, where both are known.

    Without subtracting the mean, all tensors with a large offset would be alike. NaN where too little is known, or
    where nothing varies.
    """
    known = [~np.isnan(side) for side in (golden, actual)]
    x, y = (np.where(each, side, 0.0) for each, side in zip(known, (golden, actual), strict=True))
    if all(each.all() for each in known):
        count = np.full((len(x), len(y)), float(x.shape[1]))
        sums = [x.sum(1)[:, None], y.sum(1)[None, :]]
        squares = [(x * x).sum(1)[:, None], (y * y).sum(1)[None, :]]
    else:
        here, there = (each.astype(float) for each in known)
        count = here @ there.T
        sums = [x @ there.T, here @ y.T]
        squares = [(x * x) @ there.T, here @ (y * y).T]
    with np.errstate(all="ignore"):
        varied = np.minimum(*(square - total * total / count for square, total in zip(squares, sums, strict=True)))
        apart = np.maximum(squares[0] + squares[1] - 2 * (x @ y.T), 0.0)
        distance: Numbers = np.sqrt(apart / varied)
    distance[(count < _TELLING) | ~(varied > 0)] = np.nan
    return distance

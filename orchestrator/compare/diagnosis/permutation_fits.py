"""Fits that move golden's values: shifted, reversed, transposed, or blocks in another order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD, PER_PARAMETER, Candidate, Floats, Trial
from aclcmp.orchestrator.core.diagnosis import numbers_text

_SOME_LEFT = 0.7
"""Least share that some permutation must explain before shifts are tried: values that shift in are not golden's."""
_MOST_UNITS = 4096
_MOST_GATHERED = 256
"""Most units that are searched for repeated ones; more only if the values are golden's in another order."""
_MATCHED_NUMBERS = 128
_MATCHED = 0.97
"""Share that blocks in another order must explain: the nearest of many explains some by chance."""
_CHUNK = 256
_MOST_SHIFTED = 4
"""Shifts that do not wrap around are tried up to a quarter of the axis: beyond that too little is known."""

Ints = npt.NDArray[np.int64]


def orders(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates in the order of their complexity. They do not depend on `scale`."""
    likely = trial.permutation_share >= GOOD
    if trial.permutation_share >= _SOME_LEFT:
        yield from _shifts(trial)
    if likely:
        yield from _reversals(trial)
        yield from _transpositions(trial)
    yield from _block_permutations(trial, _MOST_UNITS if likely else _MOST_GATHERED)


def moves(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates for integers: ids have no heads, but rows may hold the same ids in another order."""
    same = (np.sort(trial.x, axis=-1) == np.sort(trial.y, axis=-1)).all(-1, keepdims=True)
    words = "rows hold golden's values in another order: a top-k or a sort that orders otherwise?"
    yield Candidate("order in rows", 4, np.where(same, trial.y, trial.x), words, exact=True)
    yield from _shifts(trial)
    yield from _reversals(trial)


def _line(trial: Trial, axis: int) -> tuple[str, str]:
    """Return the name of a place along an axis, and the text after its number: ("row", " of dimension 1")."""
    if axis == trial.x.ndim - 1:
        return "channel", ""
    return "row", "" if trial.x.ndim == 2 else f" of dimension {axis}"


def _shifts(trial: Trial) -> Iterator[Candidate]:
    """Yield golden shifted along an axis by the best correlation, once with wrap-around and once without."""
    for axis, size in enumerate(trial.x.shape):
        if size < 4 or trial.x.size // size < 1:
            continue
        others = tuple(each for each in range(trial.x.ndim) if each != axis)
        spectrum = (np.conj(np.fft.rfft(trial.x, axis=axis)) * np.fft.rfft(trial.y, axis=axis)).sum(others)
        correlation = np.fft.irfft(spectrum, size)
        correlation[0] = -math.inf
        by = int(np.argmax(correlation))
        moved = np.roll(trial.x, by, axis)
        by = by if by <= size // 2 else by - size
        line, of = _line(trial, axis)
        way = f"{abs(by)} {'earlier' if by > 0 else 'later'}"
        words = f"each {line}{of} is golden's {way}: positions, a slice or a cache off by {abs(by)}?"
        kind = f"shifted {line}s"
        yield Candidate(kind, 3, moved, words)
        if abs(by) <= size // _MOST_SHIFTED:
            place = np.arange(size) - by
            inside = ((place >= 0) & (place < size)).reshape(
                [-1 if each == axis else 1 for each in range(trial.x.ndim)]
            )
            yield Candidate(kind, 3, moved, words, inside)


def _reversals(trial: Trial) -> Iterator[Candidate]:
    for axis, size in enumerate(trial.x.shape):
        if size > 2:
            line, of = _line(trial, axis)
            words = f"the {line}s{of} are in reverse order"
            yield Candidate("reversed", 3, np.flip(trial.x, axis), words)


def _transpositions(trial: Trial) -> Iterator[Candidate]:
    """Yield golden's values with its axes, or parts of its last axis, in another order."""
    shape = trial.x.shape
    for axis in range(trial.x.ndim - 1) if not trial.cut else ():
        if 1 not in shape[axis : axis + 2]:
            moved = np.swapaxes(trial.x, axis, axis + 1).reshape(shape)
            words = f"dimensions {axis} and {axis + 1} are swapped: a transposition missing or done twice?"
            yield Candidate("transposed", 4, moved, words)
    rows, width = math.prod(shape[:-1]), shape[-1]
    for outer in (each for each in range(2, width // 2 + 1) if width % each == 0):
        inner = width // outer
        moved = trial.x.reshape(rows, outer, inner).swapaxes(1, 2).reshape(shape)
        what = "halves and pairs (interleaved)" if 2 in (outer, inner) else "heads and what is in each"
        words = f"the channels, golden's as ({outer}, {inner}), are in the order ({inner}, {outer}): {what} mixed up?"
        yield Candidate("transposed", 4, moved, words)
        if trial.cut or rows == 1:
            continue
        for read_as in ((rows, outer, inner), (outer, rows, inner)):
            moved = trial.x.reshape(read_as).swapaxes(0, 1).reshape(shape)
            words = f"golden's {read_as} with the first two swapped: rows and heads not transposed before a reshape?"
            yield Candidate("transposed", 4, moved, words)


def _block_permutations(trial: Trial, most: int) -> Iterator[Candidate]:
    """Yield blocks along an axis that are golden's from another place, the largest blocks first.

    A block is matched to the nearest one by some of its numbers, unless its own is as near.
    """
    for axis, size in enumerate(trial.x.shape):
        for units in (each for each in range(2, size + 1) if size % each == 0):
            numbers = trial.x.size // units
            if units > most or numbers < 2 * PER_PARAMETER:
                break
            x, y = (_units(side, axis, units) for side in (trial.x, trial.y))
            origin = _nearest(x, y)
            if (origin == np.arange(units)).all():
                continue
            candidate = _candidate(trial, axis, x, origin)
            if trial.explained_share(candidate) >= _MATCHED:
                yield candidate
                break


def _units(side: Floats, axis: int, units: int) -> Floats:
    """Return the blocks along an axis, one in each row."""
    return np.moveaxis(side, axis, 0).reshape(units, -1)


def _nearest(x: Floats, y: Floats) -> Ints:
    """Return for each block of y the nearest block of x, or its own if no other is clearly nearer."""
    step = max(x.shape[1] // _MATCHED_NUMBERS, 1)
    x, y = x[:, : step * _MATCHED_NUMBERS : step], y[:, : step * _MATCHED_NUMBERS : step]
    sizes = np.sqrt(np.einsum("ij,ij->j", x, x) / len(x))
    sizes[sizes == 0.0] = 1.0
    x, y = x / sizes, y / sizes  # else only a few large numbers would count
    energy = np.einsum("ij,ij->i", x, x)
    own = np.einsum("ij,ij->i", y - x, y - x)
    found = np.arange(len(x))
    for begin in range(0, len(x), _CHUNK):
        part = y[begin : begin + _CHUNK]
        distance = np.einsum("ij,ij->i", part, part)[:, None] + energy - 2 * (part @ x.T)
        nearest = np.argmin(distance, axis=1)
        better = distance[np.arange(len(part)), nearest] < 0.5 * own[begin : begin + _CHUNK]
        found[begin : begin + _CHUNK][better] = nearest[better]
    return found


def _candidate(trial: Trial, axis: int, x: Floats, origin: Ints) -> Candidate:
    shape = trial.x.shape
    moved_shape = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    values = np.moveaxis(x[origin].reshape(moved_shape), 0, axis)
    units = len(origin)
    (line, of), block = _line(trial, axis), shape[axis] // units
    cost = 5 if units <= 64 else 7

    def name_of(unit: int) -> str:
        if trial.cut and line == "row":
            return f"some {line}s{of}"
        return f"{line}{'s' * (block > 1)} {numbers_text(list(range(unit * block, (unit + 1) * block)))}{of}"

    def words() -> str:
        changed = np.flatnonzero(origin != np.arange(units))
        several = f"blocks of {block} {line}s{of}" if block > 1 else f"{line}s{of}"
        if len(np.unique(origin)) < units:
            first = int(changed[0])
            where = f"in {name_of(first)} are golden's {name_of(int(origin[first]))}"
            return f"{several} are golden's of another place, some twice: {where}; a wrong index or map of heads?"
        if len(changed) == 2:
            return f"{name_of(int(changed[0]))} and {name_of(int(changed[1]))} are swapped: heads, experts or slices?"
        new = ", ".join(map(str, origin[:8].tolist())) + (" ..." if units > 8 else "")
        return f"{several} are in another order (golden's {new}): heads, experts or slices permuted?"

    return Candidate(f"permuted {line}s", cost, values, words)

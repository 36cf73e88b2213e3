"""Fits that put golden's values elsewhere: shifted, reversed, transposed, blocks in another order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD, PER_PARAMETER, Candidate, Floats, Trial
from aclcmp.orchestrator.core.diagnosis import numbers_text

_SOME_LEFT = 0.7
"""What a rearrangement might explain at least for one to be looked for: edges that shift in are not golden's."""
_MOST_UNITS = 4096
_MOST_GATHERED = 256
"""Units among which one is looked for that occurs twice; more only where the values are golden's in another order."""
_MATCHED_NUMBERS = 128
_MATCHED = 0.97
"""What blocks in another order must explain: the nearest of many explains some by chance."""
_CHUNK = 256
_MOST_SHIFTED = 4
"""A shift by at most a quarter of the axis: of more, too little is known unless it goes around."""

Ints = npt.NDArray[np.int64]


def orders(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates, in the order of their complexity; those of all values at any scale."""
    likely = trial.rearranged >= GOOD
    if trial.rearranged >= _SOME_LEFT:
        yield from _shifted(trial)
    if likely:
        yield from _reversed(trial)
        yield from _transposed(trial)
    yield from _permuted(trial, _MOST_UNITS if likely else _MOST_GATHERED)


def moves(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates for integers, as `orders` does: ids are no heads, but may be the same in another order."""
    same = (np.sort(trial.x, axis=-1) == np.sort(trial.y, axis=-1)).all(-1, keepdims=True)
    words = "rows hold golden's values in another order: a top-k or a sort that orders otherwise?"
    yield Candidate("order in rows", 4, np.where(same, trial.y, trial.x), words, exact=True)
    yield from _shifted(trial)
    yield from _reversed(trial)


def _line(trial: Trial, axis: int) -> tuple[str, str]:
    """What a place along an axis is called, and what follows its number: ("row", " of dimension 1")."""
    if axis == trial.x.ndim - 1:
        return "channel", ""
    return "row", "" if trial.x.ndim == 2 else f" of dimension {axis}"


def _shifted(trial: Trial) -> Iterator[Candidate]:
    """Golden moved along an axis by what correlates best, what leaves at the end coming in at the start or not."""
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


def _reversed(trial: Trial) -> Iterator[Candidate]:
    for axis, size in enumerate(trial.x.shape):
        if size > 2:
            line, of = _line(trial, axis)
            words = f"the {line}s{of} are in reverse order"
            yield Candidate("reversed", 3, np.flip(trial.x, axis), words)


def _transposed(trial: Trial) -> Iterator[Candidate]:
    """Golden's values in the order of another arrangement of its axes, or of parts of its last axis."""
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


def _permuted(trial: Trial, most: int) -> Iterator[Candidate]:
    """Blocks along an axis that are golden's from another place, the largest blocks first.

    A block is matched to the one that is nearest, by some of its numbers; where it is as near to its own it stays.
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
            if trial.explained(candidate) >= _MATCHED:
                yield candidate
                break


def _units(side: Floats, axis: int, units: int) -> Floats:
    """The blocks along an axis, one a row."""
    return np.moveaxis(side, axis, 0).reshape(units, -1)


def _nearest(x: Floats, y: Floats) -> Ints:
    """Of each block of y the block of x that is nearest, or its own where no other is clearly nearer."""
    step = max(x.shape[1] // _MATCHED_NUMBERS, 1)
    x, y = x[:, : step * _MATCHED_NUMBERS : step], y[:, : step * _MATCHED_NUMBERS : step]
    sizes = np.sqrt(np.einsum("ij,ij->j", x, x) / len(x))
    sizes[sizes == 0.0] = 1.0
    x, y = x / sizes, y / sizes  # a few large numbers would be all that counts
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

    def named(unit: int) -> str:
        if trial.cut and line == "row":
            return f"some {line}s{of}"
        return f"{line}{'s' * (block > 1)} {numbers_text(list(range(unit * block, (unit + 1) * block)))}{of}"

    def words() -> str:
        changed = np.flatnonzero(origin != np.arange(units))
        several = f"blocks of {block} {line}s{of}" if block > 1 else f"{line}s{of}"
        if len(np.unique(origin)) < units:
            first = int(changed[0])
            where = f"in {named(first)} are golden's {named(int(origin[first]))}"
            return f"{several} are golden's of another place, some twice: {where}; a wrong index or map of heads?"
        if len(changed) == 2:
            return f"{named(int(changed[0]))} and {named(int(changed[1]))} are swapped: heads, experts or slices?"
        new = ", ".join(map(str, origin[:8].tolist())) + (" ..." if units > 8 else "")
        return f"{several} are in another order (golden's {new}): heads, experts or slices permuted?"

    return Candidate(f"permuted {line}s", cost, values, words)

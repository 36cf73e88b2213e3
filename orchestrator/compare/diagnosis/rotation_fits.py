"""Fits that rotate pairs of channels, as rotary positions (RoPE, arXiv 2104.09864) do: by one angle, or by position.

A pair (a, b) of golden is the number a + ib, and actual is that times exp(i (phase + speed * position)), with a phase
and a speed of each pair of channels. The speed is the peak of the spectrum of conj(golden) * actual over positions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD, LAST_RESORT, PER_PARAMETER, Candidate, Floats, Trial

_HEADS = (32, 64, 80, 96, 128, 192, 256)
"""Head sizes for which the first half of a head is paired with the second, besides the whole last axis."""
_FINER = 4
_CHUNK = 64
_REFINEMENTS = 3
_CHANGED = 0.05
"""Least relative error of heads whose norms are compared."""
_KEPT = 0.2
"""Norms count as kept if they change by less than this fraction of the change by chance."""
_UNLIKE = 0.02
"""Least relative spread of golden's norms: after a norm layer all are alike, whatever the values."""

Complex = npt.NDArray[np.complex128]


def turns(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates: pairs of neighbours or of halves, rotated by one angle, by a growing one, or by any.

    The last ones are heads that keep only their norm. Candidates do not depend on `scale`.
    """
    width = trial.x.shape[-1]
    sizes = list(dict.fromkeys([*(each for each in _HEADS if width % each == 0), width]))
    for size in (0, *sizes):
        if width % 2 or (size and size % 2):
            continue
        x, y = (_pairs(side, size) for side in (trial.x, trial.y))
        lengths = np.abs(y) - np.abs(x)
        if 1 - float(np.vdot(lengths, lengths)) / float(np.vdot(trial.d, trial.d)) < GOOD:
            continue  # rotations keep lengths
        for axis in range(trial.x.ndim - 1):
            if trial.x.shape[axis] >= PER_PARAMETER:
                yield from _rotations(trial, x, y, axis, size)
        how = _pair_names(size)
        words = (
            f"{how} keep their length but are turned, by no simple rule: RoPE of other positions, or of rounded ones?"
        )
        errors = np.square(np.abs(y - x))
        if errors.sum() ** 2 >= PER_PARAMETER * np.square(errors).sum():  # a few pairs may keep their length by chance
            rotated = _to_channels(np.abs(x) * np.exp(1j * np.angle(y)), size)
            yield Candidate("turned freely", LAST_RESORT, rotated, words)
    for size in sizes:
        if size in _HEADS:
            yield from _kept_norms(trial, size)


def _kept_norms(trial: Trial, size: int) -> Iterator[Candidate]:
    """Yield heads with other channels but golden's norms: most other errors change the norm too."""
    heads = (-1, size)
    x, y = (np.linalg.norm(side.reshape(heads), axis=1) for side in (trial.x, trial.y))
    error = np.linalg.norm(trial.d.reshape(heads), axis=1)
    here = (error > _CHANGED * x) & (x > 0)
    if size < 4 or here.sum() < PER_PARAMETER or x[here].std() < _UNLIKE * x[here].mean():
        return
    changed, by_chance = np.square(y[here] - x[here]), np.square(error[here]) / size
    # both means, since one large head may keep its norm by chance
    if max(changed.sum() / by_chance.sum(), (changed / by_chance).mean()) > _KEPT**2:
        return
    values = trial.y.reshape(heads) * np.divide(x, y, out=np.ones_like(x), where=y > 0)[:, None]
    words = (
        f"each {size} channels keep their norm, but hold other values: RoPE of neighbours against halves (interleaved)?"
    )
    yield Candidate("norms kept", LAST_RESORT + 1, values.reshape(trial.x.shape), words)


def _pair_names(size: int) -> str:
    return f"halves of each {size} channels" if size else "neighbouring channels"


def _pairs(side: Floats, size: int) -> Complex:
    """Return pairs of channels as complex numbers: of neighbours, or of the halves of each `size` channels."""
    shape, width = side.shape[:-1], side.shape[-1]
    if not size:
        pairs = side.reshape(*shape, width // 2, 2)
        return np.asarray(pairs[..., 0] + 1j * pairs[..., 1])
    halves = side.reshape(*shape, width // size, 2, size // 2)
    return np.asarray(halves[..., 0, :] + 1j * halves[..., 1, :]).reshape(*shape, width // 2)


def _to_channels(pairs: Complex, size: int) -> Floats:
    shape, width = pairs.shape[:-1], 2 * pairs.shape[-1]
    if not size:
        return np.stack([pairs.real, pairs.imag], -1).reshape(*shape, width)
    halves = pairs.reshape(*shape, width // size, size // 2)
    return np.stack([halves.real, halves.imag], -2).reshape(*shape, width)


def _rotations(trial: Trial, x: Complex, y: Complex, axis: int, size: int) -> Iterator[Candidate]:
    others = tuple(each for each in range(x.ndim - 1) if each != axis)
    product = (np.conj(x) * y).sum(others)  # (positions, pairs)
    shape = [x.shape[axis] if each == axis else 1 for each in range(x.ndim - 1)] + [x.shape[-1]]
    how = _pair_names(size)
    phase = np.angle(product.sum(0))
    by_one_angle = _to_channels(x * np.exp(1j * phase), size)
    words = f"{how} are turned by the same angle at every position: positions off by a constant (RoPE)?"
    yield Candidate("turned", 7, by_one_angle, words)
    speed = _speeds(product)
    position = np.arange(len(product))[:, None]
    for _ in range(_REFINEMENTS):  # least squares of the remaining angles, weighted by the lengths
        remaining = product * np.exp(-1j * (phase + speed * position))
        phase, speed = _refine(remaining, phase, speed, position)
    turn = np.exp(1j * (phase + speed * position)).reshape(shape)
    by_position = _to_channels(x * turn, size)
    growing = f"{how} are turned by an angle that grows with the position: RoPE missing, done twice or of another base?"
    yield Candidate("turned with position", 8, by_position, growing)


def _speeds(product: Complex) -> Floats:
    """Return the angle by which each pair rotates from one position to the next, precise to a fraction of a turn."""
    padded = _FINER * (1 << (len(product) - 1).bit_length())
    speeds = np.empty(product.shape[1])
    for begin in range(0, product.shape[1], _CHUNK):
        spectrum = np.abs(np.fft.fft(product[:, begin : begin + _CHUNK], padded, axis=0))
        speeds[begin : begin + _CHUNK] = 2 * np.pi * np.fft.fftfreq(padded)[np.argmax(spectrum, axis=0)]
    return speeds


def _refine(remaining: Complex, phase: Floats, speed: Floats, position: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    turn = np.angle(remaining.sum(0))
    angle = np.angle(remaining * np.exp(-1j * turn))
    weight = np.abs(remaining)
    total = np.maximum(weight.sum(0), np.finfo(np.float64).tiny)
    middle = (weight * position).sum(0) / total
    spread = np.maximum((weight * (position - middle) ** 2).sum(0), np.finfo(np.float64).tiny)
    slope = (weight * (position - middle) * angle).sum(0) / spread
    mean = (weight * angle).sum(0) / total
    return phase + turn + mean - slope * middle, speed + slope

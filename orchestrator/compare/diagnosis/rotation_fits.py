"""Fits that turn pairs of channels, as rotary positions (RoPE, arXiv 2104.09864) do: by one angle, or by position.

A pair (a, b) of golden is the number a + ib, and actual is that times exp(i (phase + speed * position)), with a phase
and a speed of each pair of channels. The speed is the peak of the spectrum of conj(golden) * actual over positions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD, LAST_RESORT, PER_PARAMETER, Candidate, Floats, Trial

_HEADS = (32, 64, 80, 96, 128, 192, 256)
"""Sizes of heads of which the first half is paired with the second, beside the whole last axis."""
_FINER = 4
_CHUNK = 64
_REFINED = 3
_CHANGED = 0.05
"""Relative error of heads whose norms are asked for."""
_KEPT = 0.2
"""Norms that change by less than this part of what they would by chance are kept."""
_UNLIKE = 0.02
"""Golden's norms must differ by so much: after a norm all are alike, whatever the values."""

Complex = npt.NDArray[np.complex128]


def turns(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates: pairs of neighbours or of halves, turned by one angle, by one that grows, or by any.

    Last come heads of which only the norm is kept. All hold at any scale.
    """
    width = trial.x.shape[-1]
    sizes = list(dict.fromkeys([*(each for each in _HEADS if width % each == 0), width]))
    for size in (0, *sizes):
        if width % 2 or (size and size % 2):
            continue
        x, y = (_pairs(side, size) for side in (trial.x, trial.y))
        lengths = np.abs(y) - np.abs(x)
        if 1 - float(np.vdot(lengths, lengths)) / float(np.vdot(trial.d, trial.d)) < GOOD:
            continue  # a turn keeps lengths
        for axis in range(trial.x.ndim - 1):
            if trial.x.shape[axis] >= PER_PARAMETER:
                yield from _turned(trial, x, y, axis, size)
        how = _named(size)
        words = (
            f"{how} keep their length but are turned, by no simple rule: RoPE of other positions, or of rounded ones?"
        )
        errors = np.square(np.abs(y - x))
        if errors.sum() ** 2 >= PER_PARAMETER * np.square(errors).sum():  # in a few pairs chance may keep the length
            turned = _unpaired(np.abs(x) * np.exp(1j * np.angle(y)), size)
            yield Candidate("turned freely", LAST_RESORT, turned, words)
    for size in sizes:
        if size in _HEADS:
            yield from _norms_kept(trial, size)


def _norms_kept(trial: Trial, size: int) -> Iterator[Candidate]:
    """Heads whose channels are others but whose norms are golden's: of an error without that the norm changes, too."""
    heads = (-1, size)
    x, y = (np.linalg.norm(side.reshape(heads), axis=1) for side in (trial.x, trial.y))
    error = np.linalg.norm(trial.d.reshape(heads), axis=1)
    here = (error > _CHANGED * x) & (x > 0)
    if size < 4 or here.sum() < PER_PARAMETER or x[here].std() < _UNLIKE * x[here].mean():
        return
    changed, by_chance = np.square(y[here] - x[here]), np.square(error[here]) / size
    if max(changed.sum() / by_chance.sum(), (changed / by_chance).mean()) > _KEPT**2:  # one large head may by chance
        return
    values = trial.y.reshape(heads) * np.divide(x, y, out=np.ones_like(x), where=y > 0)[:, None]
    words = (
        f"each {size} channels keep their norm, but hold other values: RoPE of neighbours against halves (interleaved)?"
    )
    yield Candidate("norms kept", LAST_RESORT + 1, values.reshape(trial.x.shape), words)


def _named(size: int) -> str:
    return f"halves of each {size} channels" if size else "neighbouring channels"


def _pairs(side: Floats, size: int) -> Complex:
    """Pairs of channels as complex numbers: of neighbours, or of the halves of each `size` channels."""
    shape, width = side.shape[:-1], side.shape[-1]
    if not size:
        pairs = side.reshape(*shape, width // 2, 2)
        return np.asarray(pairs[..., 0] + 1j * pairs[..., 1])
    halves = side.reshape(*shape, width // size, 2, size // 2)
    return np.asarray(halves[..., 0, :] + 1j * halves[..., 1, :]).reshape(*shape, width // 2)


def _unpaired(pairs: Complex, size: int) -> Floats:
    shape, width = pairs.shape[:-1], 2 * pairs.shape[-1]
    if not size:
        return np.stack([pairs.real, pairs.imag], -1).reshape(*shape, width)
    halves = pairs.reshape(*shape, width // size, size // 2)
    return np.stack([halves.real, halves.imag], -2).reshape(*shape, width)


def _turned(trial: Trial, x: Complex, y: Complex, axis: int, size: int) -> Iterator[Candidate]:
    others = tuple(each for each in range(x.ndim - 1) if each != axis)
    product = (np.conj(x) * y).sum(others)  # (positions, pairs)
    shape = [x.shape[axis] if each == axis else 1 for each in range(x.ndim - 1)] + [x.shape[-1]]
    how = _named(size)
    phase = np.angle(product.sum(0))
    once = _unpaired(x * np.exp(1j * phase), size)
    words = f"{how} are turned by the same angle at every position: positions off by a constant (RoPE)?"
    yield Candidate("turned", 7, once, words)
    speed = _speeds(product)
    position = np.arange(len(product))[:, None]
    for _ in range(_REFINED):  # least squares of the angles that are left, weighted by the lengths
        left = product * np.exp(-1j * (phase + speed * position))
        phase, speed = _straightened(left, phase, speed, position)
    turn = np.exp(1j * (phase + speed * position)).reshape(shape)
    grown = _unpaired(x * turn, size)
    growing = f"{how} are turned by an angle that grows with the position: RoPE missing, done twice or of another base?"
    yield Candidate("turned with position", 8, grown, growing)


def _speeds(product: Complex) -> Floats:
    """The angle by which each pair turns from one position to the next, to a part of a full turn over all."""
    padded = _FINER * (1 << (len(product) - 1).bit_length())
    speeds = np.empty(product.shape[1])
    for begin in range(0, product.shape[1], _CHUNK):
        spectrum = np.abs(np.fft.fft(product[:, begin : begin + _CHUNK], padded, axis=0))
        speeds[begin : begin + _CHUNK] = 2 * np.pi * np.fft.fftfreq(padded)[np.argmax(spectrum, axis=0)]
    return speeds


def _straightened(
    left: Complex, phase: Floats, speed: Floats, position: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    turn = np.angle(left.sum(0))
    angle = np.angle(left * np.exp(-1j * turn))
    weight = np.abs(left)
    total = np.maximum(weight.sum(0), np.finfo(np.float64).tiny)
    middle = (weight * position).sum(0) / total
    spread = np.maximum((weight * (position - middle) ** 2).sum(0), np.finfo(np.float64).tiny)
    slope = (weight * (position - middle) * angle).sum(0) / spread
    mean = (weight * angle).sum(0) / total
    return phase + turn + mean - slope * middle, speed + slope

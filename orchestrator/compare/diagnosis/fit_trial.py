"""What a fit is tried on, and how much of the error it explains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GOOD = 0.9
"""A fit that explains this share of the error energy is worth telling."""
UNLIKE = 0.1
"""What a fit leaves must be a smaller share of actual's own energy: a tiny actual is like no golden."""
HOLDS_EVENLY = 0.5
"""What a fit must explain where rows and channels of all sizes count alike: one outlier explains no tensor."""
_SMALLEST_WEIGHED = 1e-3
"""Rows and channels that are smaller than this part of the others count as if they were as large."""
_BEYOND = 2.0
"""Errors up to so many times the noise are none: the round-off of one massive value would outweigh a wrong row."""
_MORE_THAN_NOISE = 0.1
"""What is beyond the noise must be this share of the error where rows and channels of all sizes count alike."""
LAST_RESORT = 9
"""From this cost on a fit says only what was kept, and is told where no simpler one is good."""
PER_PARAMETER = 16
"""A fit needs at least this many numbers for each parameter: random ones then explain a sixteenth."""


class Candidate(NamedTuple):
    """A change of golden that is tried."""

    kind: str
    cost: int
    """How complicated it is: of two that explain about as much the cheaper one is told."""
    values: Floats
    """What actual would be, of the shape of the trial."""
    words: str | Callable[[], str]
    """What it says; a function where that takes work, since most candidates explain nothing."""
    known: npt.NDArray[np.bool_] | None = None
    """Where golden tells what actual would be, broadcast to its shape; None: everywhere."""
    exact: bool = False
    """Whether it rests on values that round-off does not give, a limit or zero, and so may be about few numbers."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Golden x and actual y, finite, of one shape of at least two dimensions."""

    x: Floats
    y: Floats
    actual_dtype: str = "float64"
    cut: bool = False
    """Whether they are a part of larger tensors: a transposition cannot show then, and rows have other numbers."""
    noise: float = 0.0
    """The relative error of what is right; where most of the error is no more than it gives, 0."""

    @staticmethod
    def of(x: Floats, y: Floats, actual_dtype: str = "float64", *, cut: bool = False, noise: float = 0.0) -> Trial:
        """Return a trial of two arrays of one shape; one row where they have fewer than two dimensions."""
        if x.ndim < 2:
            x, y = x.reshape(1, -1), y.reshape(1, -1)
        trial = Trial(x, y, actual_dtype, cut, noise)
        plain = dataclasses.replace(trial, noise=0.0)
        tells = noise and trial.beyond(trial.d, trial.even) >= _MORE_THAN_NOISE * plain.beyond(trial.d, trial.even)
        return trial if tells else plain

    @cached_property
    def d(self) -> Floats:
        """The error."""
        return self.y - self.x

    @cached_property
    def energy(self) -> float:
        """Sum of d^2, as far as it is beyond the noise."""
        return self.beyond(self.d)

    def beyond(self, error: Floats, weights: Floats | float = 1.0) -> float:
        """Return the sum of the squares of an error, less what the noise of golden's value, row and channel gives."""
        squares = error**2
        if self.noise:
            squares = np.maximum(squares - self._allowed, 0.0)
        return float((squares * weights).sum())

    @cached_property
    def _allowed(self) -> Floats:
        """The squares of errors that are noise."""
        size = np.maximum(np.abs(self.x), (1 / self.weights).reshape(self.x.shape))
        return np.asarray((_BEYOND * self.noise * size) ** 2)

    @cached_property
    def rearranged(self) -> float:
        """The largest share of the error energy that any rearrangement of golden's values can explain.

        No permutation brings golden nearer to actual than the one that sorts both alike (rearrangement inequality).
        """
        return 1 - _square(np.sort(self.y, axis=None) - np.sort(self.x, axis=None)) / _square(self.d)

    @cached_property
    def weights(self) -> Floats:
        """One over the size of golden's row and of its channel, shape (rows, channels)."""
        flat = self.x.reshape(-1, self.x.shape[-1])
        row = _floored(np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1]))[:, None]
        even = flat / row
        channel = _floored(np.sqrt(np.einsum("ij,ij->j", even, even) / len(even)))
        return 1 / (row * channel)

    @cached_property
    def even(self) -> Floats:
        """The squares of the weights, of the shape of x."""
        return (self.weights**2).reshape(self.x.shape)

    def explained(self, candidate: Candidate) -> float:
        """Return 1 - |y - values|^2 / |y - x|^2 beyond the noise, where the values are known.

        0 where too little is known, y is unlike the values, or a few large rows and channels are all that they explain:
        where the noise is known it is what is explained where all count alike, if that is less.
        """
        left, error, actual = self.y - candidate.values, self.d, self.y
        if candidate.known is not None:
            left, error, actual = (np.where(candidate.known, each, 0.0) for each in (left, error, actual))
        rest, energy = self.beyond(left), self.beyond(error)
        if energy < 0.5 * self.energy or rest > min(UNLIKE * _square(actual), energy):
            return 0.0
        explained = 1 - rest / energy
        if candidate.exact:
            return explained
        evenly = 1 - self.beyond(left, self.even) / self.beyond(error, self.even)
        if self.noise:  # without it the round-off of small rows and channels would count
            return min(explained, evenly)
        return explained if evenly >= HOLDS_EVENLY else 0.0

    def rows_and_columns(self) -> Trial:
        """Return the same with all axes but the last as one."""
        width = self.x.shape[-1]
        x, y = self.x.reshape(-1, width), self.y.reshape(-1, width)
        return dataclasses.replace(self, x=x, y=y)


def _floored(sizes: Floats) -> Floats:
    """Sizes, the smallest as large as a part of the mean one; 1 where all are 0."""
    least = _SMALLEST_WEIGHED * float(sizes.mean())
    return np.maximum(sizes, least) if least else np.ones_like(sizes)


def _square(values: Floats) -> float:
    return float(np.vdot(values, values))

"""Trial of a fit: the values on which it is tried, and the share of the error that it explains."""

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
"""A fit that explains this share of the error energy is reported."""
UNLIKE = 0.1
"""The unexplained error must be a smaller share of actual's energy: a tiny actual resembles no golden."""
HOLDS_EVENLY = 0.5
"""Share that a fit must explain when rows and channels of all sizes count alike: one outlier is not enough."""
_SMALLEST_WEIGHED = 1e-3
"""Smallest size of a row or channel, relative to the mean; smaller ones count as if they had this size."""
_BEYOND = 2.0
"""Errors up to this multiple of the noise count as zero: else round-off of one huge value outweighs a wrong row."""
_MORE_THAN_NOISE = 0.1
"""Least share of the error beyond the noise, when rows and channels of all sizes count alike."""
LAST_RESORT = 9
"""From this cost on a fit says only what stayed the same; it is reported if no simpler one is good."""
PER_PARAMETER = 16
"""A fit needs at least this many numbers for each parameter: random ones then explain a sixteenth."""


class Candidate(NamedTuple):
    """Change of golden that may explain actual."""

    kind: str
    cost: int
    """Complexity: of two fits that explain about as much, the cheaper one is reported."""
    values: Floats
    """Actual as this change predicts it, of the shape of the trial."""
    words: str | Callable[[], str]
    """Text for the report; a function if the text takes work, since most candidates explain nothing."""
    known: npt.NDArray[np.bool_] | None = None
    """Mask of the places that the change predicts, broadcast to the trial's shape; None: everywhere."""
    exact: bool = False
    """True if it rests on values that round-off does not produce (a limit, zero); then few numbers are enough."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Golden x and actual y, finite, of one shape of at least two dimensions."""

    x: Floats
    y: Floats
    actual_dtype: str = "float64"
    cut: bool = False
    """True for a part of larger tensors: then transpositions cannot be found, and rows have other numbers."""
    noise: float = 0.0
    """Relative error of correct values; 0 if most of the error is not larger than that."""

    @staticmethod
    def of(x: Floats, y: Floats, actual_dtype: str = "float64", *, cut: bool = False, noise: float = 0.0) -> Trial:
        """Return a trial of two arrays of one shape; arrays of fewer than two dimensions become one row."""
        if x.ndim < 2:
            x, y = x.reshape(1, -1), y.reshape(1, -1)
        trial = Trial(x, y, actual_dtype, cut, noise)
        plain = dataclasses.replace(trial, noise=0.0)
        exceeds_noise = noise and trial.beyond(trial.d, trial.even) >= _MORE_THAN_NOISE * plain.beyond(
            trial.d, trial.even
        )
        return trial if exceeds_noise else plain

    @cached_property
    def d(self) -> Floats:
        """Error y - x."""
        return self.y - self.x

    @cached_property
    def energy(self) -> float:
        """Sum of d^2 beyond the noise."""
        return self.beyond(self.d)

    def beyond(self, error: Floats, weights: Floats | float = 1.0) -> float:
        """Return the weighted sum of an error's squares, less the noise of golden's value, row and channel."""
        squares = error**2
        if self.noise:
            squares = np.maximum(squares - self._allowed, 0.0)
        return float((squares * weights).sum())

    @cached_property
    def _allowed(self) -> Floats:
        """Largest squares of errors that count as noise."""
        size = np.maximum(np.abs(self.x), (1 / self.weights).reshape(self.x.shape))
        return np.asarray((_BEYOND * self.noise * size) ** 2)

    @cached_property
    def permutation_share(self) -> float:
        """Largest share of the error energy that any rearrangement of golden's values can explain.

        No permutation brings golden nearer to actual than the one that orders both alike (rearrangement inequality).
        """
        return 1 - _square(np.sort(self.y, axis=None) - np.sort(self.x, axis=None)) / _square(self.d)

    @cached_property
    def weights(self) -> Floats:
        """One over the size of golden's row and of its channel, shape (rows, channels)."""
        flat = self.x.reshape(-1, self.x.shape[-1])
        row = _raise_small(np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1]))[:, None]
        even = flat / row
        channel = _raise_small(np.sqrt(np.einsum("ij,ij->j", even, even) / len(even)))
        return 1 / (row * channel)

    @cached_property
    def even(self) -> Floats:
        """Squares of the weights, of the shape of x."""
        return (self.weights**2).reshape(self.x.shape)

    def explained_share(self, candidate: Candidate) -> float:
        """Return 1 - |y - values|^2 / |y - x|^2 beyond the noise, where the values are known.

        The share is 0 if too little is known, if y is unlike the values, or if they explain only a few large rows and
        channels. If the noise is known, it is at most the share when all rows and channels count alike.
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
        """Return the trial with all axes but the last merged into one."""
        width = self.x.shape[-1]
        x, y = self.x.reshape(-1, width), self.y.reshape(-1, width)
        return dataclasses.replace(self, x=x, y=y)


def _raise_small(sizes: Floats) -> Floats:
    """Raise small sizes to a fraction of their mean; return ones if all sizes are 0."""
    least = _SMALLEST_WEIGHED * float(sizes.mean())
    return np.maximum(sizes, least) if least else np.ones_like(sizes)


def _square(values: Floats) -> float:
    return float(np.vdot(values, values))

"""The second look at a pair that does not match: where its error sits, and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HISTOGRAM_LOWEST = -40
"""log2 of the lower edge of the histogram's first bin; each bin is one power of two, the first also holds less."""
HISTOGRAM_BINS = 64


@dataclass(frozen=True, slots=True, eq=False)
class ChannelSums:
    """Sums by channel: a channel is a place along the last axis of the whole tensor.

    Whole tensors of more than 4,096 channels are summed in groups of `group` consecutive ones.
    """

    group: int
    index: npt.NDArray[np.int64]
    """Sorted numbers of the groups that were seen, shape (c,)."""
    sum_xx: npt.NDArray[np.float64]
    """Sum of x^2 by group, shape (c,)."""
    sum_dd: npt.NDArray[np.float64]
    """Sum of d^2 by group, shape (c,)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A closed-form change of golden that leaves less of the error than golden itself."""

    kind: str
    """E.g. "scale", "shifted rows", "permuted channels"."""
    words: str
    """What it says, for people: "every value is 2 times golden's: a reduction done twice?"."""
    explained: float
    """Share of the error energy that it explains: 1 - |y - fit(x)|^2 / |y - x|^2, at most 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a second look at one (label, rank) found. x is golden, y actual, d = y - x."""

    channels: ChannelSums
    histogram: npt.NDArray[np.int64]
    """Number of finite positions by log2(|d| / rms(x)) (rms of y where x is all zero), shape (HISTOGRAM_BINS,).

    Positions without error are in no bin.
    """
    fits: tuple[Fit, ...]
    """The best first; empty where none explains anything, or none was tried."""

"""The second look at a pair that does not match: where its error sits, and what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.regions import LabelKey, Pair, Source
from aclcmp.orchestrator.core.text import count

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

    @staticmethod
    def empty() -> ChannelSums:
        """Return the sums of no channels, which merge with any."""
        return ChannelSums(0, np.empty(0, np.int64), np.empty(0), np.empty(0))

    def merge(self, other: ChannelSums) -> ChannelSums:
        """Return the sums over both; they must come from regions of whole tensors with one last axis."""
        index, place = np.unique(np.concatenate([self.index, other.index]), return_inverse=True)
        sum_xx = np.bincount(place, np.concatenate([self.sum_xx, other.sum_xx]), len(index)).astype(np.float64)
        sum_dd = np.bincount(place, np.concatenate([self.sum_dd, other.sum_dd]), len(index)).astype(np.float64)
        return ChannelSums(max(self.group, other.group), index, sum_xx, sum_dd)


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many positions there are in each row or channel of the whole tensor, of those that have any."""

    group: int
    index: npt.NDArray[np.int64]
    """Sorted numbers of groups of `group` neighbours, shape (c,)."""
    count: npt.NDArray[np.int64]

    @staticmethod
    def empty() -> Counts:
        """Return the counts of no positions, which merge with any."""
        return Counts(0, np.empty(0, np.int64), np.empty(0, np.int64))

    @staticmethod
    def of(group: int, numbers: npt.NDArray[np.int64]) -> Counts:
        """Count the numbers of groups, one for each position."""
        return Counts(group, *np.unique(numbers, return_counts=True))

    def merge(self, other: Counts) -> Counts:
        """Return the counts over both; they must come from regions of one whole tensor."""
        index, place = np.unique(np.concatenate([self.index, other.index]), return_inverse=True)
        count = np.bincount(place, np.concatenate([self.count, other.count]), len(index)).astype(np.int64)
        return Counts(max(self.group, other.group), index, count)


@dataclass(frozen=True, slots=True)
class Fit:
    """A closed-form change of golden that leaves less of the error than golden itself."""

    kind: str
    """E.g. "scale", "shifted rows", "permuted channels"."""
    words: str
    """What it says, for people: "every value is 2 times golden's: a reduction done twice?"."""
    explained: float
    """Share of the error energy that it explains: 1 - |y - fit(x)|^2 / |y - x|^2, at most 1."""


MOST_WORST_VALUES = 64


@dataclass(frozen=True, slots=True, eq=False)
class WorstRow:
    """Values of both sides around the place where the worst row of a label is off most."""

    whole_shape: tuple[int, ...]
    row: tuple[int, ...]
    """Its place along all axes of the whole tensor but the last."""
    start: int
    """Place of the first value along the last axis."""
    golden: npt.NDArray[np.float64]
    """Shape (n,), n up to `MOST_WORST_VALUES`."""
    actual: npt.NDArray[np.float64]

    @staticmethod
    def of(
        whole_shape: tuple[int, ...],
        row: tuple[int, ...],
        start: int,
        golden: npt.NDArray[np.float64],
        actual: npt.NDArray[np.float64],
    ) -> WorstRow:
        """Cut a row down to what is around the place where it is off most."""
        error = _errors(golden, actual)
        first = max(0, min(int(error.argmax()) - MOST_WORST_VALUES // 2, len(error) - MOST_WORST_VALUES))
        part = slice(first, first + MOST_WORST_VALUES)
        return WorstRow(whole_shape, row, start + first, golden[part].copy(), actual[part].copy())

    @property
    def largest(self) -> float:
        """Largest error; infinite where one side alone is not finite."""
        return float(_errors(self.golden, self.actual).max())


def _errors(golden: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    same = (golden == actual) | (np.isnan(golden) & np.isnan(actual))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(actual - golden), nan=np.inf, posinf=np.inf))


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Findings of a second look at one (label, rank). x is golden, y actual, d = y - x."""

    channels: ChannelSums
    histogram: npt.NDArray[np.int64]
    """Number of finite positions by log2(|d| / rms(x)) (rms of y where x is all zero), shape (HISTOGRAM_BINS,).

    Positions without error are in no bin.
    """
    fits: tuple[Fit, ...]
    """The best first; empty where none explains anything, or none was tried."""
    nonfinite_rows: Counts = field(default_factory=Counts.empty)
    """Positions that are NaN or infinite on one side and not in the same way on the other, by row."""
    nonfinite_channels: Counts = field(default_factory=Counts.empty)
    worst_row: WorstRow | None = None
    """None where it was not read, as of complex tensors."""

    @staticmethod
    def empty() -> Look:
        """Return the look at nothing, which merges with any."""
        return Look(ChannelSums.empty(), np.zeros(HISTOGRAM_BINS, np.int64), ())

    def merge(self, other: Look) -> Look:
        """Return the look at both; they must come from disjoint regions, and fits from one of them only."""
        histogram = self.histogram + other.histogram
        rows = self.nonfinite_rows.merge(other.nonfinite_rows)
        channels = self.nonfinite_channels.merge(other.nonfinite_channels)
        lines = [each.worst_row for each in (self, other) if each.worst_row is not None]
        line = max(lines, key=lambda each: each.largest, default=None)
        return Look(self.channels.merge(other.channels), histogram, self.fits + other.fits, rows, channels, line)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A (label, rank) that does not match, to be looked at again."""

    pairs: tuple[Pair, ...]
    """What is summed by channel and counted: all pairs of the (label, rank), none of them a summary."""
    rms: float
    """Root mean square of golden, or of actual where golden is all zero."""
    excerpt: tuple[Pair, ...] = ()
    """What fits are tried on (see `excerpt.excerpt_of`); empty where none are."""
    noise: float = 0.0
    """The relative error of the labels before that are right; 0 where that is not known."""
    row: int = -1
    """The worst row by its number in the whole; -1 where it is the first one with a value that is not finite."""

    @property
    def name(self) -> tuple[LabelKey, int]:
        """Its label and rank."""
        pair = (self.pairs or self.excerpt)[0]
        return pair.key, pair.rank


Looks = dict[tuple[LabelKey, int], Look | str]
"""By (label, rank): what a second look found, or in words why there is none."""
NO_TIME = "not looked at again: the time of the second look was over"
"""The words for what is left out because of the time that a second look may take."""


def first_problem(looks: Looks) -> str:
    """Return the first message why there is no look, other than that the time was over; "" if there is none."""
    return next((each for each in looks.values() if isinstance(each, str) and each != NO_TIME), "")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Places of one label's error: shares of its energy (the sum of d^2), and words."""

    key: LabelKey
    by_rank: dict[int, float]
    """Share of the error energy of all ranks that each wrong rank holds."""
    ranks: str
    """Which ranks are wrong, and what that suggests; e.g. "rank 3 alone: its weights, its slice or its device"."""
    rows: str
    """Which rows (tokens) hold the error, e.g. "row 64 holds 98 % of it"; "" where it is spread."""
    channels: str
    """Which places along the last axis hold it; "" where it is spread."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Likely form of a label's error on some ranks; it explains at least 90 % of the error's energy.

    Blocks of a cache that are found elsewhere explain at least a quarter: behind their rows nothing may be written.
    """

    key: LabelKey
    ranks: tuple[int, ...]
    kind: str
    """The kind of a `Fit`, or what was proven otherwise: "missing reduction", "moved blocks"."""
    words: str
    explained: float
    """Share of the error energy that it explains, up to 1, on the rank where it explains least."""


@dataclass(frozen=True, slots=True)
class TieQuestion:
    """Request to check whether ids that differ are ties by golden's scores, which lie beside golden's ids."""

    ids: Pair
    """Integers, whole on both sides: shape (..., k) beside scores of (..., n), or (...) beside (..., n)."""
    scores: Source
    noise: float
    """Largest absolute error of actual's scores."""


def nonfinite_places(looks: Sequence[Look]) -> list[str]:
    """Return in which rows and in which channels values are NaN or infinite on one side alone; "" where none are."""
    places = []
    for noun, counts in (
        ("row", [each.nonfinite_rows for each in looks]),
        ("channel", [each.nonfinite_channels for each in looks]),
    ):
        found = [each for each in counts if each.index.size]
        if len({each.group for each in found}) > 1:  # parts of wholes that are unlike
            places.append("")
            continue
        total = reduce(Counts.merge, found, Counts.empty())
        numbers = (total.index[:, None] * total.group + np.arange(total.group)).ravel()
        several, total_count = len(numbers) > 1, int(total.count.sum())
        named = f"{noun}{'s' * several} {numbers_text(numbers)} {'hold' if several else 'holds'}"
        are = f"{count(total_count, 'value')} that {'is' if total_count == 1 else 'are'} not finite on one side alone"
        places.append(f"{named} {are}" if numbers.size else "")
    return places


def numbers_text(numbers: npt.NDArray[np.int64] | list[int], most: int = 4) -> str:
    """Return sorted numbers with runs folded: "3, 16-31"; of many runs the first, and how many numbers there are."""
    found = np.asarray(numbers, np.int64)
    runs = np.split(found, np.flatnonzero(np.diff(found) != 1) + 1)
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:most] if len(run)]
    return ", ".join(words) + (f" ... ({len(found):,} of them)" if len(runs) > most else "")

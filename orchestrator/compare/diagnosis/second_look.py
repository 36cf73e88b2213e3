"""Diagnosis of one (label, rank): sums by channel and a histogram over all of it, and fits over an excerpt.

Memory does not grow with the tensors.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.element_codes import FLOAT64
from aclcmp.labeling.shard.element_values import components_of
from aclcmp.labeling.shard.tensor_summary import neighbours_together
from aclcmp.orchestrator.compare.diagnosis.excerpt import place_pairs
from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.compare.diagnosis.row_reader import RowReader
from aclcmp.orchestrator.compare.kernels.kernel import add_up, sum_errors
from aclcmp.orchestrator.compare.kernels.kernel_args import ErrorSums, KernelOperand
from aclcmp.orchestrator.compare.kernels.operands import window_operand
from aclcmp.orchestrator.compare.pair import open_sides, row_group, windows
from aclcmp.orchestrator.compare.remote_reads import NOTHING, Fetched
from aclcmp.orchestrator.core.diagnosis import (
    HISTOGRAM_BINS,
    HISTOGRAM_LOWEST,
    ChannelSums,
    Counts,
    Fit,
    Look,
    Suspect,
)
from aclcmp.orchestrator.core.regions import Pair

MOST_CHANNELS = 4096
"""Longer last axes are summed in groups of channels."""
_MASKED = 1 << 16
"""Most values at a time that are read into memory because some of them are not finite."""
_BINS = np.clip(np.arange(1 << 12) % (1 << 11) - 1023 - HISTOGRAM_LOWEST, 0, HISTOGRAM_BINS - 1)
"""Bins by the first 12 bits of a float64: sign and exponent."""

Floats = npt.NDArray[np.float64]


def diagnose_pairs(suspect: Suspect, fetched: Fetched = NOTHING) -> Look:
    """Diagnose all pairs of a (label, rank), and try fits on its excerpt.

    Positions where a side is not finite are left out of the sums of both; they are counted if the other side differs
    there. `fetched` holds what lies on other hosts. Raises ShardError when a side cannot be read.
    """
    found = Look.empty()
    for pair in suspect.pairs:
        found = found.merge(_sums(pair, suspect.rms, fetched, suspect.row))
    return found.merge(replace(Look.empty(), fits=_fits(suspect, fetched)))


def channel_group(whole_shape: tuple[int, ...]) -> int:
    """Return how many consecutive channels of a global tensor are summed together: a power of two."""
    return neighbours_together(whole_shape[-1] if whole_shape else 1, MOST_CHANNELS)


def _sums(pair: Pair, rms: float, fetched: Fetched, worst_row: int) -> Look:
    group, rows = channel_group(pair.whole_shape), row_group(pair.whole_shape)
    first, channels = (pair.region.start[-1], pair.region.shape[-1]) if pair.region.shape else (0, 1)
    base = first // group
    groups = (first + channels - 1) // group - base + 1 if channels else 0
    sides = open_sides(pair, fetched)
    parts, lowest = components_of(pair.actual.dtype), _lowest(pair)
    sums = ErrorSums(channels, parts, first - base * group, group, groups, rms)
    odd = [np.empty((2, 0), np.int64)]
    line = RowReader(pair) if parts == 1 else None
    if line is not None and worst_row >= 0:
        line.choose(worst_row)
    for start, stop, x_side, y_side in windows(*sides):
        if line is not None:
            line.read(x_side, y_side, start, stop)
        while (begin := sum_errors(x_side, y_side, start, stop, lowest, sums)) < stop:
            start = min(begin + _MASKED, stop)
            x, y, unlike = _finite_values(x_side, y_side, begin, start, lowest)
            x_finite, y_finite = (window_operand(side, FLOAT64, begin, start) for side in (x, y))
            sum_errors(x_finite, y_finite, begin, start, (-math.inf, -math.inf), sums)
            odd.append(_places((begin + np.flatnonzero(unlike)) // parts, pair))
            if line is not None and worst_row < 0 and line.is_free and odd[-1].size:
                line.choose(int(odd[-1][0, 0]))
                line.read(x_side, y_side, begin, stop)
    for side in sides:
        side.check()
    row, channel = np.concatenate(odd, axis=1)
    return Look(
        ChannelSums(group, np.arange(base, base + groups), sums.sum_xx, sums.sum_dd),
        np.bincount(_BINS, sums.counts, HISTOGRAM_BINS).astype(np.int64),
        (),
        Counts.of(rows, row // rows),
        Counts.of(group, channel // group),
        None if line is None else line.row,
    )


def _lowest(pair: Pair) -> tuple[float, float]:
    return DTYPES[pair.golden.dtype].lowest, DTYPES[pair.actual.dtype].lowest


def _places(elements: npt.NDArray[np.int64], pair: Pair) -> npt.NDArray[np.int64]:
    """Return the rows and channels, in the global tensor, of elements by their numbers in a region; shape (2, n)."""
    region = pair.region
    if not region.shape:
        return np.zeros((2, len(elements)), np.int64)
    at = np.unravel_index(elements, region.shape)
    *leading, channels = (each + start for each, start in zip(at, region.start, strict=True))
    rows = np.ravel_multi_index(leading, pair.whole_shape[:-1]) if leading else np.zeros_like(channels)
    return np.stack([rows, channels])


def _finite_values(
    x_side: KernelOperand, y_side: KernelOperand, start: int, stop: int, lowest: tuple[float, float]
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return both sides' elements start <= i < stop, with 0 where either is not finite, and a mask.

    The mask marks places where one side is not finite and the other differs. Values up to the lowest of a type count as
    -inf where the other side has them too.
    """
    x, y = (np.empty(stop - start) for _ in range(2))
    for side, values in ((x_side, x), (y_side, y)):
        add_up(side, start, stop, exact=False, first=True, sums=values.view(np.int64))
    with np.errstate(invalid="ignore"):  # signalling NaN
        hidden = (x <= lowest[0]) & (y <= lowest[1])
        left_out = ~(np.isfinite(x) & np.isfinite(y)) | hidden
        unlike = left_out & ~hidden & ~(np.isnan(x) & np.isnan(y)) & (x != y)
    x[left_out] = y[left_out] = 0.0
    return x, y, unlike


def _fits(suspect: Suspect, fetched: Fetched) -> tuple[Fit, ...]:
    """Read a suspect's excerpt, with real and imaginary parts side by side on the last axis; try all fits on it."""
    excerpt = suspect.excerpt
    if not excerpt:
        return ()
    shape, each = place_pairs(excerpt)
    parts = components_of(excerpt[0].actual.dtype)
    sides = [np.zeros((*shape, parts)) for _ in range(2)]
    for item in each:
        read = open_sides(item.pair, fetched)
        pieces = [
            _finite_values(x_side, y_side, start, stop, _lowest(item.pair))[:2]
            for start, stop, x_side, y_side in windows(*read)
        ]
        for side, operand, values in zip(sides, read, zip(*pieces, strict=True), strict=True):
            operand.check()
            side[item.place.slices] = np.concatenate(values).reshape(*item.place.shape, parts)
    flat = (*shape[:-1], (shape[-1] if shape else 1) * parts)
    golden, actual = (side.reshape(flat) for side in sides)
    first = excerpt[0]
    total = sum(pair.region.size for pair in suspect.pairs or excerpt)
    cut = math.prod(shape) < total
    found = fits_of(golden, actual, first.golden.dtype, first.actual.dtype, cut=cut, noise=suspect.noise)
    if not cut:
        return found
    where = f"in {math.prod(shape):,} of {total:,} values, where the error is largest: "
    return tuple(replace(fit, words=where + fit.words) for fit in found)

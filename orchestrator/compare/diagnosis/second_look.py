"""Diagnosis of one (label, rank): sums by channel and a histogram over all of it, and fits over an excerpt.

It works in plain numpy, window by window, so that memory does not grow with the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.element_values import components_of, decode
from aclcmp.orchestrator.compare.diagnosis.excerpt import place_pairs
from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.compare.kernels.region_split import within
from aclcmp.orchestrator.compare.pair import row_group
from aclcmp.orchestrator.compare.remote_reads import NOTHING, Fetched, fetched_bits, read_dense
from aclcmp.orchestrator.core.diagnosis import (
    HISTOGRAM_BINS,
    HISTOGRAM_LOWEST,
    ChannelSums,
    Counts,
    Fit,
    Look,
    Suspect,
)
from aclcmp.orchestrator.core.regions import Pair, Region, Source

MOST_CHANNELS = 4096
"""Longer last axes are summed in groups of channels."""
_WINDOW = 1 << 18  # Elements: 2 MiB of each side in float64, 4 MiB of complex ones.

Floats = npt.NDArray[np.float64]


def diagnose_pairs(suspect: Suspect, fetched: Fetched = NOTHING) -> Look:
    """Diagnose all pairs of a (label, rank), and try fits on its excerpt.

    Positions where a side is not finite are left out of the sums of both; they are counted if the other side differs
    there. `fetched` holds what lies on other hosts. Raises ShardError when a side cannot be read.
    """
    found = Look.empty()
    for pair in suspect.pairs:
        found = found.merge(_sums(pair, suspect.rms, fetched))
    return found.merge(replace(Look.empty(), fits=_fits(suspect, fetched)))


def channel_group(whole_shape: tuple[int, ...]) -> int:
    """Return how many consecutive channels of a global tensor are summed together: a power of two."""
    channels = whole_shape[-1] if whole_shape else 1
    group = 1
    while -(-channels // group) > MOST_CHANNELS:
        group *= 2
    return group


def _sums(pair: Pair, rms: float, fetched: Fetched) -> Look:
    group = channel_group(pair.whole_shape)
    first = pair.region.start[-1] if pair.region.start else 0
    width = pair.region.shape[-1] if pair.region.shape else 1
    base = first // group
    sums = np.zeros((2, (first + width - 1) // group - base + 1 if width else 0))
    histogram = np.zeros(HISTOGRAM_BINS, np.int64)
    odd: list[npt.NDArray[np.int64]] = []
    for window, x, y, unlike in _windows(pair, fetched):
        begin = first + (window.start[-1] if window.start else 0)
        numbers = (begin + np.arange(window.shape[-1] if window.shape else 1)) // group - base
        with np.errstate(all="ignore"):  # squares may leave float64
            d = y - x
            shape = (-1, len(numbers), x.size // window.size)
            for row, side in zip(sums, (x, d), strict=True):
                cubes = side.reshape(shape)
                row += np.bincount(numbers, np.einsum("ijk,ijk->j", cubes, cubes), len(row))
        histogram += _counts(d, rms)
        if unlike is not None and unlike.any():
            odd.append(_places(unlike, window.translate(pair.region.start), pair.whole_shape))
    seen = np.arange(base, base + sums.shape[1])
    rows, channels = np.concatenate(odd, axis=1) if odd else np.empty((2, 0), np.int64)
    return Look(
        ChannelSums(group, seen, *sums),
        histogram,
        (),
        Counts.of(row_group(pair.whole_shape), rows // row_group(pair.whole_shape)),
        Counts.of(group, channels // group),
    )


def _places(chosen: npt.NDArray[np.bool_], window: Region, whole_shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the rows and channels, in the global tensor, of the chosen places of a window; shape (2, n)."""
    flat = np.flatnonzero(chosen) // (chosen.size // window.size)
    at = np.unravel_index(flat, window.shape) if window.shape else ()
    places = [each + start for each, start in zip(at, window.start, strict=True)]
    if not places:
        return np.zeros((2, len(flat)), np.int64)
    *leading, channels = places
    rows = np.ravel_multi_index(leading, whole_shape[:-1]) if leading else np.zeros_like(channels)
    return np.stack([rows, channels])


def _counts(d: Floats, rms: float) -> npt.NDArray[np.int64]:
    """Count errors by powers of two of `rms`."""
    with np.errstate(all="ignore"):
        exponents = np.frexp(np.abs(d) / rms)[1] - 1  # floor(log2), exact at the edges
    bins = np.clip(exponents - HISTOGRAM_LOWEST, 0, HISTOGRAM_BINS - 1)
    return np.bincount(bins[d != 0], minlength=HISTOGRAM_BINS)


def _windows(pair: Pair, fetched: Fetched) -> Iterator[tuple[Region, Floats, Floats, npt.NDArray[np.bool_] | None]]:
    """Yield windows of a pair's region, each with the finite values of golden and actual, and a mask.

    The values are flat, with real and imaginary parts side by side; where either side is not finite both are 0. The
    mask marks places where one side is not finite and the other differs; it is None if both are finite everywhere. The
    lowest values of a type count as -inf where the other side has them too.
    """
    if pair.region.size == 0:
        return
    lowest_x, lowest_y = (DTYPES[source.dtype].lowest for source in (pair.golden, pair.actual))
    for window in within(Region.whole(pair.region.shape), _WINDOW, lambda region: region.size):
        x = _sum_sources((pair.golden, *pair.more_golden), pair.golden_region, window, fetched)
        y = _sum_sources((pair.actual, *pair.more_actual), pair.actual_region, window, fetched)
        hidden = (x <= lowest_x) & (y <= lowest_y)
        left_out = ~(np.isfinite(x) & np.isfinite(y)) | hidden
        unlike = None
        if left_out.any():
            unlike = left_out & ~hidden & ~(np.isnan(x) & np.isnan(y)) & (x != y)
            x[left_out] = y[left_out] = 0.0
        yield window, x, y, unlike


def _sum_sources(sources: Sequence[Source], region: Region, window: Region, fetched: Fetched) -> Floats:
    total = _values(sources[0], region, window, fetched)
    for source in sources[1:]:
        with np.errstate(invalid="ignore"):  # inf - inf
            total += _values(source, region, window, fetched)
    return total


def _values(source: Source, region: Region, window: Region, fetched: Fetched) -> Floats:
    """Return a new array of a window of a region, from the fetched data or else from its file."""
    dense = fetched_bits(fetched, (source, region))
    if dense is None:
        bits = read_dense((source, window.translate(region.start)))
    else:
        cut = tuple(slice(start, start + size) for start, size in zip(window.start, window.shape, strict=True))
        cells = dense.reshape(*region.shape, DTYPES[source.dtype].itemsize)
        bits = np.ascontiguousarray(cells[cut]).reshape(-1)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return decode(bits, source.dtype).astype(np.float64)


def _fits(suspect: Suspect, fetched: Fetched) -> tuple[Fit, ...]:
    """Read a suspect's excerpt, with real and imaginary parts side by side on the last axis; try all fits on it."""
    excerpt = suspect.excerpt
    if not excerpt:
        return ()
    shape, each = place_pairs(excerpt)
    parts = components_of(excerpt[0].actual.dtype)
    sides = [np.zeros((*shape, parts)) for _ in range(2)]
    for item in each:
        inside = tuple(slice(a, b) for a, b in zip(item.place.start, item.place.end, strict=True))
        for window, x, y, _ in _windows(item.pair, fetched):
            at = tuple(slice(start, start + size) for start, size in zip(window.start, window.shape, strict=True))
            for side, values in zip(sides, (x, y), strict=True):
                side[inside][at] = values.reshape(*window.shape, parts)
    flat = (*shape[:-1], (shape[-1] if shape else 1) * parts)
    golden, actual = (side.reshape(flat) for side in sides)
    first = excerpt[0]
    total = math.prod(first.actual.shape)
    cut = math.prod(shape) < total
    found = fits_of(golden, actual, first.golden.dtype, first.actual.dtype, cut=cut, noise=suspect.noise)
    if not cut:
        return found
    where = f"in {math.prod(shape):,} of {total:,} values, where the error is largest: "
    return tuple(replace(fit, words=where + fit.words) for fit in found)

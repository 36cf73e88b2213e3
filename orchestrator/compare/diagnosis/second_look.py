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
from aclcmp.orchestrator.compare.remote_reads import NOTHING, Fetched, RegionReader
from aclcmp.orchestrator.core.diagnosis import (
    HISTOGRAM_BINS,
    HISTOGRAM_LOWEST,
    ChannelSums,
    Counts,
    Fit,
    Look,
    Suspect,
)
from aclcmp.orchestrator.core.regions import Pair, Region

MOST_CHANNELS = 4096
"""Longer last axes are summed in groups of channels."""
_WINDOW = 1 << 16
"""Elements: 512 KiB of each side in float64, so that windows and what is computed of them stay in a cache."""
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
        begin, size = (first + window.start[-1], window.shape[-1]) if window.shape else (0, 1)
        groups = np.arange(begin // group, (begin + size - 1) // group + 1)
        edges = np.maximum(groups * group - begin, 0)
        with np.errstate(all="ignore"):  # squares may leave float64
            d = y - x
            shape = (-1, size, x.size // window.size)
            for row, side in zip(sums, (x, d), strict=True):
                cubes = side.reshape(shape)
                row[groups - base] += np.add.reduceat(np.einsum("ijk,ijk->j", cubes, cubes), edges)
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
        bits = (d / rms).view(np.uint64)
    bits >>= 52
    found = np.bincount(bits.view(np.int64), minlength=len(_BINS))
    if found[0] or found[len(_BINS) // 2]:
        found[0] -= d.size - np.count_nonzero(d)
    return np.bincount(_BINS, found, HISTOGRAM_BINS).astype(np.int64)


def _windows(pair: Pair, fetched: Fetched) -> Iterator[tuple[Region, Floats, Floats, npt.NDArray[np.bool_] | None]]:
    """Yield windows of a pair's region, each with the finite values of golden and actual, and a mask.

    The values are flat, with real and imaginary parts side by side; where either side is not finite both are 0. The
    mask marks places where one side is not finite and the other differs; it is None if both are finite everywhere. The
    lowest values of a type count as -inf where the other side has them too.
    """
    if pair.region.size == 0:
        return
    golden = [RegionReader((source, pair.golden_region), fetched) for source in (pair.golden, *pair.more_golden)]
    actual = [RegionReader((source, pair.actual_region), fetched) for source in (pair.actual, *pair.more_actual)]
    lowest_x, lowest_y = (DTYPES[source.dtype].lowest for source in (pair.golden, pair.actual))
    for window in within(Region.whole(pair.region.shape), _WINDOW, lambda region: region.size):
        x, y = (_add_up(side, window) for side in (golden, actual))
        unlike = None
        if not (_is_ordinary(x, lowest_x) and _is_ordinary(y, lowest_y)):
            hidden = (x <= lowest_x) & (y <= lowest_y)
            left_out = ~(np.isfinite(x) & np.isfinite(y)) | hidden
            unlike = left_out & ~hidden & ~(np.isnan(x) & np.isnan(y)) & (x != y)
            x[left_out] = y[left_out] = 0.0
        yield window, x, y, unlike
    for reader in (*golden, *actual):
        reader.check()


def _is_ordinary(values: Floats, lowest: float) -> bool:
    """Tell whether all values are finite and above the lowest of their type."""
    return bool(values.min() > lowest and values.max() < np.inf)  # false for NaN


def _add_up(readers: Sequence[RegionReader], window: Region) -> Floats:
    """Return a new array of the sum of the readers' values in a window."""
    total = _values(readers[0], window)
    for reader in readers[1:]:
        with np.errstate(invalid="ignore"):  # inf - inf
            total += _values(reader, window)
    return total


def _values(reader: RegionReader, window: Region) -> Floats:
    bits = np.ascontiguousarray(reader.elements(window)).reshape(-1).view(np.uint8)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = decode(bits, reader.source.dtype).astype(np.float64)
    reader.release(window)
    return values


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

"""Regions that a comparison reads, and how their data is read from storage to be sent to another host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.kernels.memory_map import MappedBits, open_bits
from aclcmp.orchestrator.compare.kernels.region_split import within
from aclcmp.orchestrator.compare.kernels.strides import Walk
from aclcmp.orchestrator.core.regions import Pair, Region, Source

Bytes = npt.NDArray[np.uint8]
Read = tuple[Source, Region]
"""Region of a stored tensor. For a summary it is the whole tensor, and the summary's packed bytes are read."""
Fetched = Mapping[Read, Bytes | str]
"""Dense bytes, flat and in C order, or a message why they could not be read."""
NOTHING: Fetched = {}

_WINDOW_BYTES = 4 << 20
_ELEMENTS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
"""Numpy type for each size of element; numpy copies these fast and without change."""


def reads_of(pair: Pair) -> list[Read]:
    """Return the regions that comparing a pair reads; none for a sum of summaries, which cannot be compared."""
    if not pair.is_whole:
        sides = () if pair.more_golden or pair.more_actual else (pair.golden, pair.actual)
        return [(source, Region.whole(source.shape)) for source in sides]
    golden = [(source, pair.golden_region) for source in (pair.golden, *pair.more_golden)]
    return golden + [(source, pair.actual_region) for source in (pair.actual, *pair.more_actual)]


def read_bytes(read: Read) -> int:
    """Return the number of bytes of a read as dense data."""
    source, region = read
    return region.size * DTYPES[source.dtype].itemsize if source.is_whole else source.nbytes


def fetched_bits(fetched: Fetched, read: Read) -> Bytes | None:
    """Return the bytes of a read that was fetched, None if it was not. Raises ShardError if it failed."""
    found = fetched.get(read)
    if isinstance(found, str):
        raise ShardError(found)
    return found


def open_summary(source: Source) -> MappedBits:
    """Map a summary's packed bytes. Raises ShardError where they cannot be read or are not those that were recorded."""
    packed = open_bits(replace(source, dtype="uint8", shape=(source.nbytes,), capture="full"))
    packed.check()
    return packed


class RegionReader:
    """Region of a stored tensor that is read window by window, from fetched data or else from its file."""

    def __init__(self, read: Read, fetched: Fetched = NOTHING) -> None:
        """Open what is read. Raises ShardError where it cannot be read."""
        self.source, region = read
        bits: npt.NDArray[Any] | None = fetched_bits(fetched, read)
        self._stored, self._start, shape = None, (0,) * len(region.start), region.shape
        if bits is None:
            self._stored = open_bits(self.source)
            bits, self._start, shape = self._stored.bits, region.start, self.source.shape
        self._tensor = bits.view(_ELEMENTS[DTYPES[self.source.dtype].itemsize]).reshape(shape)

    def elements(self, window: Region) -> npt.NDArray[Any]:
        """Return a view of a window of the region; its numpy type has the right size only."""
        return self._tensor[_slices(window.translate(self._start))].reshape(window.shape)

    def span(self, window: Region) -> int:
        """Return the number of bytes from the first to the last element of a window in storage."""
        first, last = self._ends(window)
        return (last - first) * self._tensor.itemsize

    def release(self, window: Region) -> None:
        """Give back the memory behind a window that has been read."""
        if self._stored is not None:
            self._stored.release(*self._ends(window))

    def check(self) -> None:
        """Raise ShardError unless the file still holds what was recorded."""
        if self._stored is not None:
            self._stored.check()

    def _ends(self, window: Region) -> tuple[int, int]:
        walk = Walk.of(self._tensor.shape, window.translate(self._start))
        return walk.base, walk.flat_index(window.size - 1) + 1


def read_dense(read: Read) -> Bytes:
    """Read a region into memory as flat bytes, its elements dense in C order.

    Besides the result, only some MiB of the file are mapped at a time. Raises ShardError where the tensor cannot be
    read or is not what was recorded.
    """
    source, region = read
    if not source.is_whole:
        return np.array(open_summary(source).bits, np.uint8)
    reader = RegionReader(read)
    dense = np.empty(region.shape, _ELEMENTS[DTYPES[source.dtype].itemsize])
    for window in within(Region.whole(region.shape), _WINDOW_BYTES, reader.span) if region.size else ():
        dense[_slices(window)] = reader.elements(window)
        reader.release(window)
    reader.check()
    return dense.reshape(-1).view(np.uint8)


def _slices(region: Region) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(region.start, region.shape, strict=True))

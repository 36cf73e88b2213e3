"""Regions that a comparison reads, and how their data is read from storage to be sent to another host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.gathered_rows import GatheredRows
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.compare.kernels.region_split import within
from aclcmp.orchestrator.compare.kernels.strides import Walk
from aclcmp.orchestrator.core.regions import Pair, Region, Source

Bytes = npt.NDArray[np.uint8]
Read = tuple[Source, Region]
"""Region of a stored tensor. Of a summary its packed bytes are read, of summaries of rows those of the region's."""
Fetched = Mapping[Read, Bytes | str]
"""Dense bytes, flat and in C order, or a message why they could not be read."""
NOTHING: Fetched = {}

_WINDOW_BYTES = 4 << 20
_ELEMENTS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
"""Numpy type for each size of element; numpy copies these fast and without change."""


def reads_of(pair: Pair) -> list[Read]:
    """Return the regions that comparing a pair reads; none for a sum of summaries, which cannot be compared."""
    if not pair.is_whole and (pair.more_golden or pair.more_actual):
        return []
    golden = [(source, pair.golden_region) for source in (pair.golden, *pair.more_golden)]
    return golden + [(source, pair.actual_region) for source in (pair.actual, *pair.more_actual)]


def read_bytes(read: Read) -> int:
    """Return the number of bytes of a read as dense data."""
    source, region = read
    if source.is_whole:
        return region.size * DTYPES[source.dtype].itemsize
    return source.nbytes if source.places is None else source.nbytes // source.shape[0] * region.shape[0]


def fetched_bits(fetched: Fetched, read: Read) -> Bytes | None:
    """Return the bytes of a read that was fetched, None if it was not. Raises ShardError if it failed."""
    found = fetched.get(read)
    if isinstance(found, str):
        raise ShardError(found)
    return found


def read_summary(source: Source) -> Bytes:
    """Read a summary's packed bytes. Raises ShardError where they cannot be read or are not what was recorded."""
    stored = open_bits(replace(source, dtype="uint8", shape=(source.nbytes,), capture="full"))
    packed = np.array(stored.bits, np.uint8)
    stored.check()
    return packed


def read_dense(read: Read) -> Bytes:
    """Read a region into memory as flat bytes, its elements dense in C order.

    Besides the result, only some MiB of the file are mapped at a time. Raises ShardError where the tensor cannot be
    read or is not what was recorded.
    """
    source, region = read
    if not source.is_whole:
        return read_summary(source) if source.places is None else _read_rows(_as_bytes(source, region))
    if source.places is not None:
        return _read_rows(read)
    stored = open_bits(source)
    itemsize = stored.bits.itemsize
    tensor = stored.bits.view(_ELEMENTS[itemsize]).reshape(source.shape)
    dense = np.empty(region.shape, tensor.dtype)

    def ends(window: Region) -> tuple[int, int]:
        walk = Walk.of(source.shape, window)
        return walk.base, walk.last + 1

    def span(window: Region) -> int:
        first, last = ends(window)
        return (last - first) * itemsize

    if region.size:
        origin = tuple(-start for start in region.start)
        for window in within(region, _WINDOW_BYTES, span):
            dense[window.translate(origin).slices] = tensor[window.slices]
            stored.release(*ends(window))
    stored.check()
    return dense.reshape(-1).view(np.uint8)


def _as_bytes(source: Source, region: Region) -> Read:
    """Return the packed summaries of a region's rows as a region of a tensor of bytes."""
    rows = source.shape[0]
    table = replace(source, dtype="uint8", shape=(rows, source.nbytes // rows), capture="full")
    return table, Region((region.start[0], 0), (region.shape[0], table.shape[1]))


def _read_rows(read: Read) -> Bytes:
    source, region = read
    gathered = GatheredRows(source)
    found = np.empty(read_bytes(read), np.uint8)
    filled = 0
    for window in within(region, _WINDOW_BYTES, lambda part: read_bytes((source, part))):
        nbytes = read_bytes((source, window))
        found[filled : filled + nbytes] = gathered.read(window)
        filled += nbytes
    gathered.check()
    return found

"""Rows of a tensor that lie scattered over stored ones, gathered into memory window by window."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.regions import Region, Source, StoredRows

_WINDOW_BYTES = 4 << 20
_checked: set[StoredRows] = set()
"""Tensors whose checksum was right in this process: their rows are read for several ranks and labels."""


class GatheredRows:
    """A source with places, open for reading; its files stay mapped while this is referenced."""

    def __init__(self, source: Source) -> None:
        """Map the files. Raises ShardError when one cannot be opened or ends before the last row."""
        assert source.places is not None
        self._source = source
        self._itemsize = DTYPES[source.dtype].itemsize
        self._row_bytes = math.prod(source.shape[1:]) * self._itemsize
        self._files = {path: _map(path) for path in dict.fromkeys(piece.path for piece in source.places.pieces)}
        for piece in source.places.pieces:
            size = len(self._files[piece.path])
            if piece.offset + piece.rows * self._row_bytes > size:
                end = piece.offset + piece.rows * self._row_bytes
                raise ShardError(
                    f"{piece.path}: has {size} bytes, but a tensor in it ends at byte {end}; it is truncated"
                )

    def read(self, region: Region) -> npt.NDArray[np.uint8]:
        """Return the bytes of a region of [rows, features], flat and dense in C order."""
        places = self._source.places
        assert places is not None
        rows = slice(region.start[0], region.start[0] + region.shape[0])
        piece, row = places.piece[rows], places.row[rows]
        shape, inner = self._source.shape[1:], Region(region.start[1:], region.shape[1:])
        # boxes that are one run of each row are gathered as they are, others with their whole rows
        run = _run_of(shape, inner)
        first, width = (0, math.prod(shape)) if run is None else run
        gathered = np.empty((len(row), width * self._itemsize), np.uint8)
        for path, pages in self._files.items():
            chosen = np.array([each.path == path for each in places.pieces])[piece]
            offsets = np.array([each.offset for each in places.pieces], np.int64)
            starts = offsets[piece] + row.astype(np.int64) * self._row_bytes + first * self._itemsize
            if gathered.size and chosen.any():
                scattered = np.ndarray(
                    (len(pages) - gathered.shape[1] + 1,), np.dtype((np.void, gathered.shape[1])), pages, 0, (1,)
                )
                gathered.view(scattered.dtype)[chosen, 0] = scattered[starts[chosen]]
            pages.madvise(mmap.MADV_DONTNEED)
        if run is not None:
            return gathered.reshape(-1)
        cells = gathered.reshape(len(row), *shape, self._itemsize)
        box = tuple(slice(start, start + size) for start, size in zip(inner.start, inner.shape, strict=True))
        return np.ascontiguousarray(cells[(slice(None), *box)]).reshape(-1)

    def windows(self, region: Region) -> Iterator[Region]:
        """Yield parts of a region, some rows each, that take some MiB."""
        row_bytes = math.prod(region.shape[1:]) * self._itemsize
        step = max(_WINDOW_BYTES // max(row_bytes, 1), 1)
        for begin in range(0, region.shape[0], step):
            size = min(step, region.shape[0] - begin)
            yield Region((region.start[0] + begin, *region.start[1:]), (size, *region.shape[1:]))

    def check(self) -> None:
        """Raise ShardError unless the stored tensors are what was recorded. Only then may what was read be used."""
        assert self._source.places is not None
        for piece in self._source.places.pieces:
            pages, end = self._files[piece.path], piece.offset + piece.rows * self._row_bytes
            if piece.checksum is None or piece in _checked:
                continue
            with memoryview(pages) as whole:
                if xxhash.xxh3_64_intdigest(whole[piece.offset : end]) != piece.checksum:
                    raise ShardError(
                        f"{piece.path}: the {end - piece.offset:,} bytes from {piece.offset:,} on are not those that "
                        "were recorded (their checksum is wrong): the file was damaged"
                    )
            pages.madvise(mmap.MADV_DONTNEED)
            _checked.add(piece)


def _map(path: str) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    try:
        return mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ShardError(f"{path}: cannot be mapped: {error}") from error
    finally:
        os.close(descriptor)


def _run_of(shape: tuple[int, ...], box: Region) -> tuple[int, int] | None:
    """Return the first element and the size of a box that is one run of a tensor of `shape`; None for other boxes."""
    inner = 1
    for axis in range(len(shape) - 1, -1, -1):
        if box.shape[axis] != shape[axis]:
            if any(size != 1 for size in box.shape[:axis]):
                return None
            break
        inner *= shape[axis]
    first = 0
    for start, size in zip(box.start, shape, strict=True):
        first = first * size + start
    return first, math.prod(box.shape)

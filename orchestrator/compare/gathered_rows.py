"""Rows of a tensor that lie scattered over stored ones: read where they lie in mapped files, or gathered by window."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.kernels.bus_guard import BusGuard
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.core.regions import Region, Source

_WINDOW_BYTES = 4 << 20
_MOST_MAPPED = 64 << 20
"""Bytes of files that stay in this process's memory before they are given back: mapping a page again takes 1 us."""
_AROUND_A_FAULT = 64 << 10
"""Bytes that Linux maps around a page that is read."""
_LEAST_HASHED_IN_C = 240
_MOST_HASHED_FIRST = 4 << 20
"""Bytes of a piece that is hashed before its rows are read, which then stay in the cache; larger ones come last."""
_checked: set[int] = set()
"""Hashes of pieces whose checksums were right in this process: their rows are read for several ranks and labels."""


class GatheredRows:
    """A source with places, open for reading; its files stay mapped while this is referenced."""

    def __init__(self, source: Source) -> None:
        """Map the files. Raises ShardError when one cannot be opened or ends before the last row."""
        assert source.places is not None
        self._source = source
        self._places = places = source.places
        self._itemsize = DTYPES[source.dtype].itemsize
        self._row_bytes = math.prod(source.shape[1:]) * self._itemsize
        self._files = [_MappedFile(path) for path in places.paths]
        self._sizes = places.rows * self._row_bytes
        self._ends = places.offset + self._sizes
        sizes, bases = (np.array([getattr(each, what) for each in self._files]) for what in ("size", "address"))
        beyond = np.flatnonzero(self._ends > sizes[places.file])
        if beyond.size:
            file, end = int(places.file[beyond[0]]), int(self._ends[beyond[0]])
            raise ShardError(
                f"{places.paths[file]}: has {sizes[file]} bytes, but a tensor in it ends at byte {end}; it is truncated"
            )
        self._addresses = bases[places.file] + places.offset
        found = self._ends.tobytes(), places.checksum.tobytes()
        self._key = hash((tuple(each.key for each in self._files), places.offset.tobytes(), *found))
        self._is_hashed = np.full(len(places.offset), self._key in _checked) | (places.checksum == 0)
        self._mapped = np.empty(0, np.int64)
        """Blocks of _AROUND_A_FAULT bytes that are in memory, by their addresses."""

    def addresses(self, region: Region) -> npt.NDArray[np.int64] | None:
        """Return where each row of a region lies in memory, if it is one run that begins at a whole element."""
        run = _run_of(self._source.shape[1:], Region(region.start[1:], region.shape[1:]))
        if run is None or (self._addresses % self._itemsize).any():
            return None
        rows = slice(region.start[0], region.start[0] + region.shape[0])
        starts = self._places.row[rows].astype(np.int64) * self._row_bytes + run[0] * self._itemsize
        return self._addresses[self._places.piece[rows]] + starts

    def prepare(self, begin: int, end: int) -> None:
        """Take the checksums of the small pieces that have the rows begin <= i < end: they are read next anyway.

        Pages that were mapped before are given back when they are many. Raises ShardError for a wrong checksum.
        """
        rows = slice(begin, end)
        piece = self._places.piece[rows]
        self._release(self._addresses[piece] + self._places.row[rows].astype(np.int64) * self._row_bytes)
        fresh = np.zeros(len(self._sizes), np.bool_)
        fresh[piece] = True
        fresh &= ~self._is_hashed & (self._sizes > _LEAST_HASHED_IN_C) & (self._sizes <= _MOST_HASHED_FIRST)
        self._check_small(np.flatnonzero(fresh))

    def read(self, region: Region) -> npt.NDArray[np.uint8]:
        """Return the bytes of a region of [rows, features], flat and dense in C order."""
        rows = slice(region.start[0], region.start[0] + region.shape[0])
        piece, row = self._places.piece[rows], self._places.row[rows]
        shape, inner = self._source.shape[1:], Region(region.start[1:], region.shape[1:])
        # boxes that are one run of each row are gathered as they are, others with their whole rows
        run = _run_of(shape, inner)
        first, width = (0, math.prod(shape)) if run is None else run
        gathered = np.empty((len(row), width * self._itemsize), np.uint8)
        addresses = self._addresses[piece] + row.astype(np.int64) * self._row_bytes + first * self._itemsize
        load_library().gather_rows(
            ctypes.c_void_p(addresses.ctypes.data),
            ctypes.c_int64(len(row)),
            ctypes.c_int64(gathered.shape[1]),
            ctypes.c_void_p(gathered.ctypes.data),
        )
        self._release(addresses)
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
        left = np.flatnonzero(~self._is_hashed)
        for piece in left.tolist():
            file = self._files[self._places.file[piece]]
            begin, end = int(self._places.offset[piece]), int(self._ends[piece])
            found = xxhash.xxh3_64()
            with memoryview(file.pages) as whole:
                for some in range(begin, end, _WINDOW_BYTES):
                    found.update(whole[some : min(some + _WINDOW_BYTES, end)])
                    if end - begin > _WINDOW_BYTES:
                        file.pages.madvise(mmap.MADV_DONTNEED)
            self._raise_unless_right(np.array([piece]), np.array([found.intdigest()], np.uint64))
        for file in self._files:
            file.guard.check()
        _checked.add(self._key)

    def _check_small(self, pieces: npt.NDArray[np.intp]) -> None:
        addresses, sizes = self._addresses[pieces], self._sizes[pieces]
        found = np.empty(len(pieces), np.uint64)
        arrays = (ctypes.c_void_p(each.ctypes.data) for each in (addresses, sizes))
        load_library().hash_pieces(*arrays, ctypes.c_int64(len(pieces)), ctypes.c_void_p(found.ctypes.data))
        self._raise_unless_right(pieces, found)

    def _raise_unless_right(self, pieces: npt.NDArray[np.intp], found: npt.NDArray[np.uint64]) -> None:
        wrong = pieces[found != self._places.checksum[pieces]]
        self._is_hashed[pieces] = True
        if wrong.size:
            file = self._files[self._places.file[wrong[0]]]
            file.guard.check()
            begin, end = int(self._places.offset[wrong[0]]), int(self._ends[wrong[0]])
            raise ShardError(
                f"{file.path}: the {end - begin:,} bytes from {begin:,} on are not those that "
                "were recorded (their checksum is wrong): the file was damaged"
            )

    def _release(self, addresses: npt.NDArray[np.int64]) -> None:
        """Give the files' pages back when much was mapped; `addresses` are those that were just read."""
        self._mapped = np.union1d(self._mapped, addresses // _AROUND_A_FAULT)
        if self._mapped.size * _AROUND_A_FAULT > _MOST_MAPPED:
            self._mapped = self._mapped[:0]
            for file in self._files:
                file.pages.madvise(mmap.MADV_DONTNEED)


class _MappedFile:
    """A file in memory, guarded against reads behind its end."""

    def __init__(self, path: str) -> None:
        """Map the whole file. Raises ShardError where that is not possible."""
        self.path = path
        self.pages, self.key = _map(path)
        self.size = len(self.pages)
        self.address: int = np.frombuffer(self.pages, np.uint8).ctypes.data
        self.guard = BusGuard(self.pages, path)


def _map(path: str) -> tuple[mmap.mmap, tuple[object, ...]]:
    """Map a file; also return what tells it, and its content, from others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    try:
        file = os.fstat(descriptor)
        pages = mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        return pages, (path, file.st_ino, file.st_mtime_ns)
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

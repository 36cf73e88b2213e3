"""Rows of a tensor that lie scattered over stored ones: in mapped files, or in memory where small pieces lie apart."""

from __future__ import annotations

import ctypes
import math
import mmap

import numpy as np
import numpy.typing as npt
import xxhash

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.kernels.bus_guard import BusGuard, cut_error
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.kernels.memory_map import damage_error, open_to_map, truncation_error
from aclcmp.orchestrator.compare.kernels.strides import Walk
from aclcmp.orchestrator.core.regions import Region, Source

_WINDOW_BYTES = 4 << 20
_MOST_MAPPED = 64 << 20
"""Bytes of files that stay in this process's memory before they are given back: mapping a page again takes 1 us.

What the rows of one window map is not given back before all are read: if they lie far apart, it may be more.
"""
_AROUND_A_FAULT = 2 << 20
"""Most bytes that Linux maps around a page that is read: 64 KiB, or what it has of the file in one huge page."""
_LARGEST_READ = 64 << 10
"""Bytes of a piece that may be read into memory instead.

To map a page costs 0.5 to 0.8 us where the file was written in small pieces, and Linux maps all 16 of a block of 64
KiB. That takes longer than to copy a piece, unless pieces fill more than half of the blocks in which they lie.
"""
_BLOCK = 64 << 10
_ALIGNED = 16
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
        sizes = np.array([each.size for each in self._files])
        bases = np.array([each.address for each in self._files])
        beyond = np.flatnonzero(self._ends > sizes[places.file])
        if beyond.size:
            file, end = int(places.file[beyond[0]]), int(self._ends[beyond[0]])
            raise truncation_error(places.paths[file], sizes[file], end)
        self._addresses = bases[places.file] + places.offset
        found = self._ends.tobytes(), places.checksum.tobytes()
        self._key = hash((tuple(each.key for each in self._files), places.offset.tobytes(), *found))
        self._is_hashed = np.full(len(places.offset), self._key in _checked) | (places.checksum == 0)
        self._is_small = (self._sizes > _LEAST_HASHED_IN_C) & (self._sizes <= _MOST_HASHED_FIRST)
        """Pieces that the kernels hash; the others are tiny or large."""
        self._file_bytes = int(sizes.sum())
        self._mapped = 0
        """Most bytes of the files that may be in memory."""
        self._is_read = self._lie_apart()
        """Pieces that were copied into memory; the others are mapped."""
        self._copies = self._read_pieces(np.flatnonzero(self._is_read))

    def addresses(self, region: Region) -> npt.NDArray[np.int64] | None:
        """Return where each row of a region lies in memory, if it is one run that begins at a whole element."""
        walk = self._walk(region)
        if walk.levels or (self._addresses % self._itemsize).any():
            return None
        return self._row_addresses(region) + walk.base * self._itemsize

    def prepare(self, begin: int, end: int) -> None:
        """Take the checksums of the small pieces that have the rows begin <= i < end: they are read next anyway.

        Pages that were mapped before are given back when they are many. Raises ShardError for a wrong checksum.
        """
        pieces = self._places.piece[begin:end]
        self._make_room(self._row_bytes, int(np.count_nonzero(~self._is_read[pieces])))
        is_next = np.zeros(len(self._sizes), np.bool_)
        is_next[pieces] = True
        self._check_small(is_next)

    def read(self, region: Region) -> npt.NDArray[np.uint8]:
        """Return the bytes of a region of [rows, features], flat and dense in C order."""
        if not region.size:
            return np.empty(0, np.uint8)
        walk, count = self._walk(region), region.shape[0]
        addresses = self._row_addresses(region) + walk.base * self._itemsize
        # of each row all bytes from the first to the last are gathered, then what lies between the runs is left out
        gathered = np.empty((count, (walk.last - walk.base + 1) * self._itemsize), np.uint8)
        pieces = self._places.piece[region.start[0] : region.start[0] + count]
        self._make_room(gathered.shape[1], int(np.count_nonzero(~self._is_read[pieces])))
        load_library().gather_rows(
            ctypes.c_void_p(addresses.ctypes.data),
            ctypes.c_int64(count),
            ctypes.c_int64(gathered.shape[1]),
            ctypes.c_void_p(gathered.ctypes.data),
        )
        shape = (count, *(size for size, _ in walk.levels), walk.run * self._itemsize)
        strides = (gathered.shape[1], *(stride * self._itemsize for _, stride in walk.levels), 1)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(gathered, shape, strides)).reshape(-1)

    def check(self) -> None:
        """Raise ShardError unless the stored tensors are what was recorded. Only then may what was read be used."""
        self._check_small(self._is_small)
        for piece in np.flatnonzero(~self._is_hashed).tolist():
            file = self._files[self._places.file[piece]]
            begin, end = int(self._places.offset[piece]), int(self._ends[piece])
            found = xxhash.xxh3_64()
            with memoryview(file.pages) as whole:
                for start in range(begin, end, _WINDOW_BYTES):
                    stop = min(start + _WINDOW_BYTES, end)
                    self._make_room(stop - start)
                    found.update(whole[start:stop])
            self._raise_unless_right(np.array([piece]), np.array([found.intdigest()], np.uint64))
        for file in self._files:
            file.guard.check()
        _checked.add(self._key)

    def _lie_apart(self) -> npt.NDArray[np.bool_]:
        """Tell the small pieces, if they lie so far apart, and are so few, that they are better read into memory."""
        small: npt.NDArray[np.bool_] = (self._sizes > 0) & (self._sizes <= _LARGEST_READ)
        file = self._places.file[small].astype(np.int64) << 48
        first, last = self._places.offset[small] // _BLOCK, (self._ends[small] - 1) // _BLOCK
        blocks = np.unique(np.concatenate([file + first, file + last])).size
        is_worth_it = self._sizes[small].sum() <= min(blocks * _BLOCK // 2, _MOST_MAPPED)
        return small if is_worth_it else np.zeros_like(small)

    def _read_pieces(self, pieces: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """Read pieces into memory, which is returned, and check them. Raises ShardError for what cannot be read."""
        sizes, offsets = self._sizes[pieces], self._places.offset[pieces]
        bounds = np.cumsum(np.concatenate([[0], -(-sizes // _ALIGNED) * _ALIGNED]))
        copies, found = np.empty(bounds[-1], np.uint8), np.zeros(len(pieces), np.uint64)
        of_file = self._places.file[pieces]
        for number in np.unique(of_file).tolist():  # one open file at a time: there may be one for each rank
            some = np.flatnonzero(of_file == number)
            hashes = np.zeros(len(some), np.uint64)
            wanted = offsets[some], sizes[some], bounds[some]
            arrays = (ctypes.c_void_p(each.ctypes.data) for each in wanted)
            outputs = (ctypes.c_void_p(each.ctypes.data) for each in (copies, hashes))
            with open_to_map(self._places.paths[number]) as (descriptor, _):
                file, count = ctypes.c_int64(descriptor), ctypes.c_int64(len(some))
                read = load_library().read_pieces(file, *arrays, count, *outputs)
            if read < len(some):
                raise cut_error(self._places.paths[number])
            found[some] = hashes
        for tiny in np.flatnonzero(sizes <= _LEAST_HASHED_IN_C).tolist():
            found[tiny] = xxhash.xxh3_64_intdigest(copies[bounds[tiny] : bounds[tiny] + sizes[tiny]])
        self._addresses[pieces] = copies.ctypes.data + bounds[:-1]
        known = self._places.checksum[pieces] != 0  # also where another reader checked them: the file may have changed
        self._raise_unless_right(pieces[known], found[known])
        return copies

    def _walk(self, region: Region) -> Walk:
        """Return the walk, within a row, of what a region has of each."""
        return Walk.of(self._source.shape[1:], Region(region.start[1:], region.shape[1:]))

    def _row_addresses(self, region: Region) -> npt.NDArray[np.int64]:
        """Return where the rows of a region begin in memory."""
        rows = slice(region.start[0], region.start[0] + region.shape[0])
        starts = self._places.row[rows].astype(np.int64) * self._row_bytes
        return self._addresses[self._places.piece[rows]] + starts

    def _check_small(self, wanted: npt.NDArray[np.bool_]) -> None:
        """Take the checksums of the small ones of the wanted pieces that have not been taken."""
        pieces = np.flatnonzero(wanted & self._is_small & ~self._is_hashed)
        if not pieces.size:
            return
        part = np.cumsum(self._sizes[pieces]) // (_MOST_MAPPED - _MOST_HASHED_FIRST)
        for some in np.split(pieces, np.flatnonzero(np.diff(part)) + 1):
            addresses, sizes = self._addresses[some], self._sizes[some]
            self._make_room(int(sizes.sum()))
            found = np.empty(len(some), np.uint64)
            arrays = (ctypes.c_void_p(each.ctypes.data) for each in (addresses, sizes))
            load_library().hash_pieces(*arrays, ctypes.c_int64(len(some)), ctypes.c_void_p(found.ctypes.data))
            self._raise_unless_right(some, found)

    def _raise_unless_right(self, pieces: npt.NDArray[np.intp], found: npt.NDArray[np.uint64]) -> None:
        wrong = pieces[found != self._places.checksum[pieces]]
        self._is_hashed[pieces] = True
        if wrong.size:
            file = self._files[self._places.file[wrong[0]]]
            file.guard.check()
            raise damage_error(file.path, int(self._places.offset[wrong[0]]), int(self._sizes[wrong[0]]))

    def _make_room(self, nbytes: int, count: int = 1) -> None:
        """Give the files' pages back if too many would be in memory with `count` runs of `nbytes`, read next."""
        more = count * max(nbytes, _AROUND_A_FAULT)
        self._mapped = min(self._mapped + more, self._file_bytes)
        if self._mapped > _MOST_MAPPED:
            self._mapped = more
            for file in self._files:
                file.pages.madvise(mmap.MADV_DONTNEED)


class _MappedFile:
    """A file in memory, guarded against reads behind its end."""

    def __init__(self, path: str) -> None:
        """Map the whole file. Raises ShardError where that is not possible."""
        self.path = path
        with open_to_map(path) as (descriptor, file):
            self.pages = mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        self.key = path, file.st_ino, file.st_mtime_ns  # of it and its content
        self.size = len(self.pages)
        self.address: int = np.frombuffer(self.pages, np.uint8).ctypes.data
        self.guard = BusGuard(self.pages, path)

"""Memory maps of stored tensors, whose pages are released after reading."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.kernels.bus_guard import BusGuard
from aclcmp.orchestrator.core.regions import Source

_WINDOW_BYTES = 4 << 20
_checked: set[int] = set()
"""Hashes of tensors whose checksum was right in this process: slices of one may be read for several ranks."""


class MappedBits:
    """Bits of a stored tensor, read-only, flat, in `DType.memory`; the file stays mapped while this is referenced."""

    def __init__(
        self, source: Source, file: os.stat_result, bits: npt.NDArray[np.generic], pages: mmap.mmap | None, skipped: int
    ) -> None:
        """Take the mapped elements, which begin `skipped` bytes into `pages`; `pages` is None for an empty tensor."""
        self.bits = bits
        self.pages = pages
        self._skipped = skipped
        self._source = source
        self._guard = None if pages is None else BusGuard(pages, source.path)
        self._hash = xxhash.xxh3_64()
        self._hashed = 0
        """Number of elements, from the first on, that have been hashed."""
        self._key = hash((source.path, source.offset, source.checksum, file.st_ino, file.st_mtime_ns))
        self._is_checked = source.checksum is None or self._key in _checked

    def release(self, start: int, stop: int) -> None:
        """Release the memory of the elements start <= i < stop; later access reads them again from the file.

        Without this, mapped pages count as the process's memory, even though the system could drop them. Only whole
        pages are released, and the one around `stop` is kept, since reading continues there. If elements are released
        in order from the first on, they are hashed here, while they are still in a cache.
        """
        if self.pages is None:
            return
        if not self._is_checked and start <= self._hashed < stop:
            self._hash.update(self.bits[self._hashed : stop].view(np.uint8))
            self._hashed = min(stop, self.bits.size)
        first = (self._skipped + start * self.bits.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        last = (self._skipped + stop * self.bits.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self.pages.madvise(mmap.MADV_DONTNEED, first, last - first)

    def check(self) -> None:
        """Raise ShardError unless the file still holds what was recorded. Only then may data that was read be used.

        Elements that were not released yet are read here. A tensor without a checksum passes if all could be read.
        """
        if self._guard is None:
            return
        if not self._is_checked:
            self._check_hash(self._guard)
        self._guard.check()

    def check_pages(self) -> None:
        """Raise ShardError where the file could not be read; whether it holds what was recorded is not asked."""
        if self._guard is not None:
            self._guard.check()

    def _check_hash(self, guard: BusGuard) -> None:
        step = max(_WINDOW_BYTES // self.bits.itemsize, 1)
        while self._hashed < self.bits.size:
            self.release(self._hashed, min(self._hashed + step, self.bits.size))
        guard.check()
        if self._hash.intdigest() != self._source.checksum:
            raise damage_error(self._source.path, self._source.offset, self.bits.nbytes)
        self._is_checked = True
        _checked.add(self._key)


def open_bits(source: Source) -> MappedBits:
    """Map the elements of `source`.

    Raises ShardError when the file cannot be opened or ends before the last element.
    """
    dtype = DTYPES[source.dtype].memory
    count = math.prod(source.shape)
    end = source.offset + count * dtype.itemsize
    begin = source.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with open_to_map(source.path) as (descriptor, file):
        if file.st_size < end:
            raise truncation_error(source.path, file.st_size, end)
        if count == 0:
            return MappedBits(source, file, np.empty(0, dtype), None, 0)
        pages = mmap.mmap(descriptor, end - begin, mmap.MAP_SHARED, mmap.PROT_READ, offset=begin)
    skipped = source.offset - begin
    bits = np.frombuffer(pages, np.uint8, count * dtype.itemsize, skipped).view(dtype)
    return MappedBits(source, file, bits, pages, skipped)


@contextmanager
def open_to_map(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a file while it is mapped. Raises ShardError, with its path, where that or the mapping fails."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    try:
        yield descriptor, os.fstat(descriptor)
    except ShardError:
        raise
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ShardError(f"{path}: cannot be mapped: {error}") from error
    finally:
        os.close(descriptor)


def truncation_error(path: str, size: int, end: int) -> ShardError:
    """Return the error of a file that ends before a tensor in it does."""
    return ShardError(f"{path}: has {size} bytes, but a tensor in it ends at byte {end}; it is truncated")


def damage_error(path: str, offset: int, nbytes: int) -> ShardError:
    """Return the error of bytes whose checksum is wrong."""
    return ShardError(
        f"{path}: the {nbytes:,} bytes from {offset:,} on are not those that were recorded (their checksum is wrong): "
        "the file was damaged"
    )


def give_back_store() -> None:
    """Drop the pages of Ray's object store from this process's memory, if the system can.

    All pages that were read or written count as the process's memory until it ends, soon the whole store (256 MiB).
    Only shared pages are dropped: the store keeps their contents, and they come back when they are read.
    """
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    for fields in (line.split(maxsplit=5) for line in maps):
        if len(fields) == 6 and "plasma" in fields[5] and fields[1].endswith("s"):
            begin, end = (int(address, 16) for address in fields[0].split("-"))
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)

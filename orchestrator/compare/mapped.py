"""Stored tensors as memory maps that do not stay in memory."""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.plan.regions import Source


@dataclass(frozen=True, slots=True, eq=False)
class MappedBits:
    """A stored tensor's bits, read-only, flat, in `DType.memory`; its file is mapped as long as this is referenced."""

    bits: npt.NDArray[np.generic]
    pages: mmap.mmap | None
    """None for an empty tensor."""
    skipped: int
    """Bytes of `pages` before the first element."""

    def release(self, start: int, stop: int) -> None:
        """Give back the memory behind the elements start <= i < stop; they are read again from the file on need.

        Mapped pages count as the process's memory until then, even though the kernel could drop them. Only whole pages
        are given back, and the one around `stop` is kept, since reading goes on there.
        """
        if self.pages is None:
            return
        first = (self.skipped + start * self.bits.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        last = (self.skipped + stop * self.bits.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self.pages.madvise(mmap.MADV_DONTNEED, first, last - first)


def open_bits(source: Source) -> MappedBits:
    """Map the elements of `source`.

    Raises ShardError when the file cannot be opened or ends before the last element.
    """
    dtype = DTYPES[source.dtype].memory
    count = math.prod(source.shape)
    end = source.offset + count * dtype.itemsize
    try:
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShardError(f"{source.path}: {error.strerror}") from error
    try:
        length = os.fstat(descriptor).st_size
        if length < end:
            raise ShardError(
                f"{source.path}: has {length} bytes, but a tensor in it ends at byte {end}; it is truncated"
            )
        if count == 0:
            return MappedBits(np.empty(0, dtype), None, 0)
        begin = source.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        pages = mmap.mmap(descriptor, end - begin, mmap.MAP_SHARED, mmap.PROT_READ, offset=begin)
    finally:
        os.close(descriptor)
    skipped = source.offset - begin
    bits = np.frombuffer(pages, np.uint8, count * dtype.itemsize, skipped).view(dtype)
    return MappedBits(bits, pages, skipped)

"""Shared memory that a process has read, and need not keep in sight."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path


def give_back_store() -> None:
    """Drop the pages of Ray's object store from this process's memory, where the system can.

    What was once read or written there counts as the process's until it ends, which soon is the whole store (256 MiB).
    Only shared pages are dropped, of which the store keeps the contents, so that they come back when they are read.
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

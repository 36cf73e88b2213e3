"""Guard of a mapped file: a read behind its end, or from a failing disk, gives zeros instead of the signal SIGBUS."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from aclcmp.labeling.errors import ShardError
from aclcmp.orchestrator.compare.kernels.load_library import load_library


class BusGuard:
    """Guard of one mapping, as long as it is referenced. Of more than 4,096 at a time the latest guard nothing."""

    def __init__(self, pages: mmap.mmap, path: str) -> None:
        """Take a mapping of the file `path`."""
        self._path = path
        self._library = load_library()
        address = np.frombuffer(pages, np.uint8).ctypes.data
        self._number: int = self._library.guard_mapping(ctypes.c_size_t(address), ctypes.c_size_t(len(pages)))

    def __del__(self) -> None:
        if self._number >= 0:
            self._library.free_guard(ctypes.c_int(self._number))

    def check(self) -> None:
        """Raise ShardError where the file could not be read: what was read of it must not be used."""
        if self._number >= 0 and self._library.has_failed(ctypes.c_int(self._number)):
            raise cut_error(self._path)


def cut_error(path: str) -> ShardError:
    """Return the error of a file that had its bytes, and then could not be read."""
    return ShardError(f"{path}: could not be read to its end: it was cut while it was compared, or its disk fails")

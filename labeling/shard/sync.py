"""Syncing sealed files to the disk while the process goes on, so that a power cut loses none of them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

_NOT_OFFERED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems that do not offer fsync."""


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on disk. Raises OSError where the disk fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)


class BackgroundSync:
    """Background threads that sync files one after the other: a segment of 1 GiB may take seconds."""

    def __init__(self) -> None:
        """Start with nothing to sync."""
        self._threads: list[threading.Thread] = []
        self._errors: list[OSError] = []

    def begin(self, path: Path) -> None:
        """Begin to sync a complete file."""
        thread = threading.Thread(target=self._sync, args=(path, self._threads[-1:]), name="aclcmp-sync", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down, or there are too many threads
            self._sync(path, [])
        else:
            self._threads.append(thread)

    def wait(self) -> None:
        """Wait until all files are on disk. Raises the first OSError of any of them."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._errors:
            raise self._errors[0]

    def _sync(self, path: Path, before: list[threading.Thread]) -> None:
        for thread in before:
            thread.join()
        try:
            sync(path)
        except OSError as error:
            self._errors.append(error)

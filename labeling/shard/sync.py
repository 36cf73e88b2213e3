"""Getting sealed files onto the disk while the process goes on, so that a power cut takes none of them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

_NOT_OFFERED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What file systems answer that have nothing to sync."""


def sync(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on disk. Raises OSError where the disk fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)


class BackgroundSync:
    """Syncs files one after the other in a thread of its own: a segment of 1 GiB may take seconds."""

    def __init__(self) -> None:
        """Nothing is begun yet."""
        self._threads: list[threading.Thread] = []
        self._errors: list[OSError] = []

    def begin(self, path: Path) -> None:
        """Sync a file that is complete."""
        thread = threading.Thread(target=self._sync, args=(path, self._threads[-1:]), name="aclcmp-sync", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down, or there are too many threads
            self._sync(path, [])
        else:
            self._threads.append(thread)

    def wait(self) -> None:
        """Return when all files are on disk. Raises the first OSError that there was."""
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

"""The folder of a local Ray: its sockets, its logs (11 MB a run), what it spills. Only its owner may look into it.

It goes when its Ray is stopped. What a process that was killed left behind goes when the next local Ray starts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_PREFIX = "aclcmp-ray-"
_LONGEST_BASE = 20
"""Below it stand up to 86 characters, and a socket's path has at most 107."""


class SessionFolder:
    """A new private folder, locked as long as this process lives or until `remove`.

    The lock, which the kernel takes away however the process ends, tells others that the folder is in use.
    """

    def __init__(self, base: Path) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))  # mode 0700
            with suppress(FileNotFoundError):
                self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if self.path.is_dir():
                    return
                os.close(self._lock)  # another process took it for a forgotten one before it was locked

    @property
    def for_ray(self) -> Path:
        """What Ray may take. It lets everybody write there, each of its workers anew: that is why it is within."""
        return self.path / "r"

    def remove(self) -> None:
        """Remove it with all that is in it. A worker that ends late makes it anew, empty: left for the next start."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def base_folder(environ: Mapping[str, str]) -> Path:
    """Where such folders are made: where Ray would make its own, or in /tmp where a socket's path would be too long."""
    chosen = environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp"
    return Path(chosen if len(os.fsencode(chosen)) <= _LONGEST_BASE else "/tmp")


def remove_forgotten(base: Path) -> None:
    """Remove the folders that this user's killed processes left there. Never one in use, or another user's."""
    with suppress(OSError):
        for path in base.glob(f"{_PREFIX}*"):
            _remove_if_forgotten(path)


def _remove_if_forgotten(path: Path) -> None:
    with suppress(OSError):  # in use, gone, or no folder
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(folder).st_uid == os.geteuid():
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(folder)

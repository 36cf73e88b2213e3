"""Private folder of a local Ray: its sockets, its logs (11 MB a run), and objects that it spills.

The folder is removed when its Ray is stopped. A folder that a killed process left behind is removed at the start of
the next local Ray.
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
"""Ray appends up to 86 characters, and a socket's path has at most 107."""


class SessionFolder:
    """A new private folder, locked until `remove` or the end of this process.

    The lock, which the kernel releases however the process ends, shows others that the folder is in use.
    """

    def __init__(self, base: Path) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))  # mode 0700
            with suppress(FileNotFoundError):
                self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if self.path.is_dir():
                    return
                os.close(self._lock)  # another process took it for an abandoned one before it was locked

    @property
    def for_ray(self) -> Path:
        """Folder that Ray uses. It is inside the private one, since each of Ray's workers makes it writable for all."""
        return self.path / "r"

    def remove(self) -> None:
        """Remove the folder with its contents. A late worker may make it again, empty; the next start removes that."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def base_folder(environ: Mapping[str, str]) -> Path:
    """Return the parent of such folders: Ray's own choice, or /tmp where a socket's path would be too long."""
    chosen = environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp"
    return Path(chosen if len(os.fsencode(chosen)) <= _LONGEST_BASE else "/tmp")


def remove_leftovers(base: Path) -> None:
    """Remove the folders that killed processes of this user left there, but none that is in use."""
    with suppress(OSError):
        for path in base.glob(f"{_PREFIX}*"):
            _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    with suppress(OSError):  # in use, gone, or no folder
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(folder).st_uid == os.geteuid():
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(folder)

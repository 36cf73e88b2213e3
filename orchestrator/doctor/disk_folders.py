"""Folders on one host: their space, and whether files in them can be locked."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder of a host. Sizes in bytes, of its file system."""

    path: str
    exists: bool
    writable: bool
    total: int
    free: int
    inodes: int
    """Number of files that can still be made; -1 where the file system does not count them."""
    locks: str = ""
    """The reason why files in it cannot be locked; "" if they can, or if it was not tried."""
    owner: int = -1
    """User id; -1 where the folder does not exist."""


def ray_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of Ray's sessions, by these variables in this order (ray/_common/utils.py of 2.60)."""
    return Path(environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp") / "ray"


def owner_of(path: Path) -> int:
    """Return the user id of a file's owner; -1 where the file is missing or not accessible."""
    try:
        return path.stat().st_uid
    except OSError:
        return -1


def inspect_folder(path: Path, *, try_locks: bool = False) -> Folder:
    """Return the state of a folder, or of the one where it would be made. `try_locks`: lock a nameless file there."""
    exists = _is_folder(path)
    there = path
    while not _is_folder(there):
        there = there.parent
    state = os.statvfs(there)
    writable = os.access(there, os.W_OK | os.X_OK)
    return Folder(
        path=str(path),
        exists=exists,
        writable=writable,
        total=state.f_blocks * state.f_frsize,
        free=state.f_bavail * state.f_frsize,
        inodes=state.f_favail if state.f_files else -1,
        locks=_why_no_locks(there) if try_locks and writable else "",
        owner=owner_of(path),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # below a folder of another user
        return False


def _why_no_locks(folder: Path) -> str:
    """Lock a file both ways: HDF5 and the journals use flock, the lock daemon of NFS serves fcntl.

    Return why that failed, "" if it worked.
    """
    reason = [f"no answer within {_LOCK_SECONDS:g} s"]  # NFS without its lock daemon waits for ever

    def lock() -> None:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            reason[0] = ""
        except OSError as error:
            reason[0] = error.strerror or str(error)

    thread = threading.Thread(target=lock, daemon=True)
    thread.start()
    thread.join(_LOCK_SECONDS)
    return reason[0]

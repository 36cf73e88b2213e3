"""Where files go on one host: room, and whether they can be locked."""

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
    """Files that can still be made; -1 where the file system does not count them."""
    locks: str = ""
    """Why files in it cannot be locked; "": they can, or it was not tried."""
    owner: int = -1
    """User id; -1 where the folder does not exist."""


def ray_folder(environ: Mapping[str, str]) -> Path:
    """Where Ray keeps its sessions: below these variables in this order (ray/_common/utils.py of 2.60)."""
    return Path(environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp") / "ray"


def owner_of(path: Path) -> int:
    """User id of a file's owner; -1 where there is no such file, or it may not be looked at."""
    try:
        return path.stat().st_uid
    except OSError:
        return -1


def look_at_folder(path: Path, *, try_locks: bool = False) -> Folder:
    """Look at a folder, or where it would be made. With `try_locks` a nameless file is made in it and locked."""
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
    """Lock a file both ways: flock is HDF5's and the journals', fcntl what NFS's lock daemon answers."""
    why = [f"no answer within {_LOCK_SECONDS:g} s"]  # NFS without its lock daemon waits for ever

    def lock() -> None:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            why[0] = ""
        except OSError as error:
            why[0] = error.strerror or str(error)

    thread = threading.Thread(target=lock, daemon=True)
    thread.start()
    thread.join(_LOCK_SECONDS)
    return why[0]

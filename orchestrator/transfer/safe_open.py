"""Open files below a folder, part by part without following links, so that none outside of it can be reached."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aclcmp.labeling.shard.checksum import hash_start

_LONGEST = 255  # bytes of a name that every file system here can hold
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: the name may be a pipe's


def split_path(name: object) -> tuple[str, ...]:
    """Return the parts of a file's path below a folder; the path comes from another host, so it is data.

    Raises ValueError for a path that could lead out of the folder, or that not every file system can hold.
    """
    parts = tuple(name.split("/")) if isinstance(name, str) else ("",)
    for part in parts:
        if part in ("", ".", "..") or "\\" in part or not part.isprintable() or len(os.fsencode(part)) > _LONGEST:
            raise ValueError(f"{name!r} is no path of a run's file")
    return parts


@contextmanager
def open_folder_of(root: Path, name: str, *, create: bool = False) -> Iterator[int]:
    """Open the folder that holds `root`/`name`; `create` makes missing folders below `root`.

    Raises OSError, also where a link or a file is in place of a folder.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in name.split("/")[:-1]:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            below = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_below(root: Path, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open the regular file `root`/`name`; with O_CREAT make it and its folders. Raises OSError."""
    create = bool(flags & os.O_CREAT)
    with open_folder_of(root, name, create=create) as folder:
        descriptor = os.open(name.rpartition("/")[2], flags | _FILE, 0o640, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{name} is not an ordinary file")
            yield descriptor
        finally:
            os.close(descriptor)


def size_of(root: Path, name: str) -> int | None:
    """Return the size of a regular file in bytes; None where there is none."""
    try:
        with open_below(root, name) as file:
            return os.fstat(file).st_size
    except OSError:
        return None


def digest_of(root: Path, name: str) -> str:
    """Return the digest of a whole file. Raises OSError."""
    with open_below(root, name) as descriptor, open(descriptor, "rb", closefd=False) as file:
        try:
            return hash_start(file, os.fstat(descriptor).st_size).hexdigest()
        except EOFError as error:
            raise OSError(f"{name}: {error}") from None


def move_file(root: Path, name: str, to_root: Path, to_name: str) -> None:
    """Move a file within a file system, replacing the file at the new place. Raises OSError."""
    with open_folder_of(root, name) as source, open_folder_of(to_root, to_name, create=True) as target:
        ends = (each.rpartition("/")[2] for each in (name, to_name))
        os.replace(*ends, src_dir_fd=source, dst_dir_fd=target)

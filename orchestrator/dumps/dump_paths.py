"""The files below a folder in natural order, and the rank and the step that their paths state."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError, error_text, name_file_in_errors, printable

MOST_RANKS = 1_000_000
"""Larger numbers are not taken for ranks: planning takes time and memory for each."""

_RANK = re.compile(r"(?:^|(?<=[._-]))rank[._-]?([0-9]{1,6})(?=[._-]|$)", re.IGNORECASE)
_STEP = re.compile(r"step[._-]?([0-9]{1,18})", re.IGNORECASE)
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class File:
    """A file below a folder."""

    parts: tuple[str, ...]
    """Its path below the folder."""
    path: str
    """Without links."""
    refused: str = ""
    """The reason why it must not be read, "" where it may be."""
    time: float = 0.0
    """When it was last written, in seconds since the epoch."""

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self._split_name()[0]

    @property
    def suffix(self) -> str:
        """The ending of the name, in lower case, with its dot."""
        return self._split_name()[1].lower()

    def _split_name(self) -> tuple[str, str]:
        """Split the name before its last dot, unless only dots stand before it. Path() costs more than the listing."""
        name = self.parts[-1]
        stem, dot, end = name.rpartition(".")
        return (stem, dot + end) if stem.strip(".") else (name, "")


def list_files(folder: Path) -> list[File]:
    """Return the regular files below `folder` in natural order of their paths; a file alone where it is one.

    Links to folders are not followed; links to files that leave the folder are refused. Raises ForeignFormatError when
    a folder cannot be listed.
    """
    if folder.is_file():
        return [File((folder.name,), os.path.realpath(folder), time=folder.stat().st_mtime)]
    root = os.path.realpath(folder)
    return sorted(_walk(root, root, ()), key=lambda file: tuple(map(natural, file.parts)))


def _walk(root: str, folder: str, parts: tuple[str, ...]) -> Iterator[File]:
    with name_file_in_errors(folder), os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        below = (*parts, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if len(below) < _MAX_DEPTH:
                yield from _walk(root, entry.path, below)
        elif entry.is_symlink():
            yield from _resolve_link(root, entry.path, below)
        elif entry.is_file(follow_symlinks=False):
            yield File(below, entry.path, time=entry.stat(follow_symlinks=False).st_mtime)


def _resolve_link(root: str, path: str, parts: tuple[str, ...]) -> Iterator[File]:
    real = os.path.realpath(path)
    try:
        status = Path(real).stat()
    except OSError as error:
        yield File(parts, path, f"{printable(path)}: {error_text(error)}")
        return
    if stat.S_ISREG(status.st_mode):
        inside = os.path.commonpath((real, root)) == root
        why = (
            ""
            if inside
            else f"{printable(path)} leads outside {printable(root)}, which is refused; copy the file into there"
        )
        yield File(parts, real, why, status.st_mtime)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which `layer.10` comes after `layer.9`."""
    pieces = re.split(r"([0-9]{1,300})", name)
    return tuple((0, int(piece), "") if k % 2 else (1, 0, piece) for k, piece in enumerate(pieces) if piece)


def step_of(name: str) -> int | None:
    """Return the number in the name of a folder `stepN`, else None."""
    named = _STEP.fullmatch(name)
    return int(named[1]) if named else None


def rank_of(name: str) -> tuple[int | None, str]:
    """Return the rank that a name states (`rankN`), if any, and the name without it."""
    named = _RANK.search(name)
    if named is None:
        return None, name
    before, after = name[: named.start()].rstrip("._-"), name[named.end() :].lstrip("._-")
    return int(named[1]), f"{before}.{after}" if before and after else before + after


def parse_path(parts: tuple[str, ...]) -> tuple[int, int, str]:
    """Return the rank, the step and the name that a file's path states.

    The name is the rest of the path without the suffix, joined by dots. Rank and step are 0 where none is stated.
    """
    rank, step = 0, 0
    names: list[str] = []
    *folders, file_name = parts
    for part in (*folders, file_name[: file_name.rindex(".")] if "." in file_name else file_name):
        number = step_of(part) if len(names) < len(folders) else None
        if number is not None:
            step = number
            continue
        stated, rest = rank_of(part)
        rank = rank if stated is None else stated
        if rest:
            names.append(rest)
    return rank, step, ".".join(names)


def check_one_folder(files: Iterable[tuple[int, File]]) -> None:
    """Raise ForeignFormatError when two folders hold files of one rank; `files` are pairs of rank and file."""
    folders: dict[int, tuple[str, ...]] = {}
    for rank, file in files:
        folder = file.parts[:-1]
        other = folders.setdefault(rank, folder)
        if other != folder:
            both = " and ".join(printable("/".join(each)) or "the folder itself" for each in (other, folder))
            raise ForeignFormatError(f"rank {rank} has dumps in both {both}; name one of them")

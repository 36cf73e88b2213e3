"""The actor on a host from which files are fetched: it lists files, reads pieces of them and computes their digests."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.transfer.file_selection import FileSelection
from aclcmp.orchestrator.transfer.safe_open import digest_of, open_below


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a run on another host."""

    name: str
    """Relative to the run directory."""
    nbytes: int


class Courier:
    """Body of the Ray actor. It reads below the run directory and follows no link."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, selection: FileSelection) -> tuple[list[RemoteFile], int]:
        """Return the selected files of this host, sorted within a folder, and the number of those refused."""
        found: list[RemoteFile] = []
        refused = 0
        for top in selection.folders:
            for folder, folders, names in os.walk(self._root / top):
                folders.sort()
                links = [name for name in folders if Path(folder, name).is_symlink()]
                for path in (Path(folder, name) for name in sorted([*names, *links])):
                    facts, relative = path.lstat(), path.relative_to(self._root).as_posix()
                    if stat.S_ISREG(facts.st_mode) and selection.allows(relative):
                        found.append(RemoteFile(relative, facts.st_size))
                    else:
                        refused += top == "dumps"
        return found, refused

    def piece(self, name: str, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return bytes of a file, fewer at its end. Raises OSError."""
        with open_below(self._root, name) as file:
            return np.frombuffer(os.pread(file, nbytes, offset), np.uint8)

    def digest(self, name: str) -> str:
        """Return the digest of a file. Raises OSError."""
        return digest_of(self._root, name)

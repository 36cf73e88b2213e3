"""What runs on a host from which files are brought: it lists them, reads pieces of them, and tells their hashes."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.transfer.safe_open import digest_of, opened
from aclcmp.orchestrator.transfer.selection import Wanted


@dataclass(frozen=True, slots=True)
class FarFile:
    """A file of a run on another host: its name relative to the run directory, and its size in bytes."""

    name: str
    nbytes: int


class Courier:
    """Body of the Ray actor. It reads below the run directory and follows no link."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, wanted: Wanted) -> tuple[list[FarFile], int]:
        """The wanted files of this host, those of one folder by their names; also how many it has but cannot give."""
        found: list[FarFile] = []
        refused = 0
        for top in wanted.folders:
            for folder, folders, names in os.walk(self._root / top):
                folders.sort()
                links = [name for name in folders if Path(folder, name).is_symlink()]
                for path in (Path(folder, name) for name in sorted([*names, *links])):
                    facts, relative = path.lstat(), path.relative_to(self._root).as_posix()
                    if stat.S_ISREG(facts.st_mode) and wanted.allows(relative):
                        found.append(FarFile(relative, facts.st_size))
                    else:
                        refused += top == "dumps"
        return found, refused

    def piece(self, name: str, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Bytes of a file, fewer at its end. Raises OSError."""
        with opened(self._root, name) as file:
            return np.frombuffer(os.pread(file, nbytes, offset), np.uint8)

    def digest(self, name: str) -> str:
        """The hash of a file. Raises OSError."""
        return digest_of(self._root, name)

"""Names of a shard's files, and of the datasets inside them.

A rank's first process writes `rank00003.h5` (further segments `rank00003.0001.h5`) and `rank00003.journal`; any other
process of the same rank (a fork, a worker, a second script) writes a shard of its own, `rank00003-<n>.*`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_STEM = re.compile(r"^rank(\d{5,})(?:-(\d+))?$")


@dataclass(frozen=True, slots=True, order=True)
class ShardFiles:
    """The files of one shard in `folder`; `process` counts the processes of the rank, from 0."""

    folder: Path
    rank: int
    process: int = 0

    @property
    def stem(self) -> str:
        """The common beginning of the names of all files of the shard."""
        return f"rank{self.rank:05d}" + (f"-{self.process}" if self.process else "")

    @property
    def journal(self) -> Path:
        """The commit journal."""
        return self.folder / f"{self.stem}.journal"

    @property
    def reserve(self) -> Path:
        """Disk space reserved during writing; on a full disk it is removed, so that failures can be noted."""
        return self.folder / f"{self.stem}.reserve"

    def segment(self, number: int) -> Path:
        """Return the path of one HDF5 file of the shard."""
        return self.folder / (f"{self.stem}.h5" if number == 0 else f"{self.stem}.{number:04d}.h5")

    def segments(self) -> list[int]:
        """Return the numbers of the segments that exist, ascending."""
        found = []
        for path in self.folder.glob(f"{self.stem}*.h5"):
            parsed = parse_segment(path)
            if parsed is not None and parsed[0] == self:
                found.append(parsed[1])
        return sorted(found)


def parse_segment(path: Path) -> tuple[ShardFiles, int] | None:
    """Return the shard and the number of the segment that a path names; None for any other file name."""
    stem, dot, number = path.name.removesuffix(".h5").partition(".")
    match = _STEM.match(stem)
    if path.suffix != ".h5" or match is None or (dot and not number.isdecimal()):
        return None
    return ShardFiles(path.parent, int(match[1]), int(match[2] or 0)), int(number or 0)


def shards_in(folder: Path) -> list[ShardFiles]:
    """Return all shards in a folder, by rank and process. A shard exists when its journal or any segment does."""
    found = {parsed[0] for path in folder.glob("rank*.h5") if (parsed := parse_segment(path)) is not None}
    for path in folder.glob("rank*.journal"):
        if match := _STEM.match(path.stem):
            found.add(ShardFiles(folder, int(match[1]), int(match[2] or 0)))
    return sorted(found)


def escape(name: str) -> str:
    """Return a data id as a legal HDF5 link name: `/`, `%` and a leading dot become %XX."""
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return "%2E" + escaped[1:] if escaped.startswith(".") else escaped


def dataset_name(task: int, data_id: str, occurrence: int, side: str) -> str:
    """Return the path of a label's dataset inside the HDF5 file."""
    return f"/tasks/{task}/{escape(data_id)}/{occurrence}/{side}"

"""The files to fetch from another host, and the file names that the host may give. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.shard.shard_files import parse_segment
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.transfer.safe_open import split_path

_JOURNAL = re.compile(r"rank(\d{5,})(?:-\d+)?\.journal", re.ASCII)
_OF_RANK_OR_NODE = re.compile(r"(rank|node)(\d{5,})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileSelection:
    """The files to fetch from one host: those of the ranks that ran there, and of its number among the job's nodes."""

    what: Fetch
    ranks: frozenset[int]
    node: int

    @property
    def folders(self) -> tuple[str, ...]:
        """Return the folders of a run directory that hold these files."""
        return {Fetch.REPORT: (), Fetch.SHARDS: ("shards",), Fetch.ALL: ("shards", "logs", "dumps")}[self.what]

    def allows(self, name: str) -> bool:
        """Tell whether a name, relative to the run directory, is that of a file of this host's ranks.

        A name from another host is data: it must not lead out of the run directory.
        """
        try:
            parts = split_path(name)
        except ValueError:
            return False
        if parts[0] not in self.folders:
            return False
        if parts[0] == "shards":
            return len(parts) == 2 and _rank_of_shard(parts[1]) in self.ranks
        if parts[0] == "logs":
            return len(parts) == 2 and parts[1].endswith(".log") and self._owns(parts[1].removesuffix(".log"))
        return len(parts) > 2 and self._owns(parts[1])

    def _owns(self, stem: str) -> bool:
        match = _OF_RANK_OR_NODE.fullmatch(stem)
        return match is not None and (int(match[2]) in self.ranks if match[1] == "rank" else int(match[2]) == self.node)


def _rank_of_shard(name: str) -> int | None:
    """Return the rank of a segment or a journal, None for another file."""
    if match := _JOURNAL.fullmatch(name):
        return int(match[1])
    parsed = parse_segment(Path(name))
    return None if parsed is None else parsed[0].rank

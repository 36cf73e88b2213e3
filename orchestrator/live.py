"""What the ranks have labelled so far, read from the journals that lie on this host while they grow."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from aclcmp.labeling.shard.files import ShardFiles
from aclcmp.orchestrator.report.words import shorten, visible

_MOST_RANKS = 8
_PERIOD = 0.5
_MOST_BYTES = 4 << 20
_NAME_ROOM = 48


@dataclass(slots=True)
class Tail:
    """One rank's journal, followed as it grows."""

    path: Path
    labels: int = 0
    task: int = 0
    last: str = ""
    """Id of the last label."""
    _offset: int = 0
    _rest: bytes = b""

    def read(self) -> None:
        """Take what was written since the last time, up to 4 MiB of it; a line that is not whole yet waits."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read(_MOST_BYTES)
        except OSError:  # not there yet, or on another host
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        labels = [line for line in lines if line[9:10] == b"["]  # behind the checksum; header and end are no lists
        self.labels += len(labels)
        if labels:
            try:
                self.task, self.last = json.loads(labels[-1][9:])[:2]
            except (ValueError, TypeError):  # damaged: the comparison will say so
                return


class Followed:
    """The journals of a run, as a table that is asked for again and again."""

    def __init__(self, shards: Path, ranks: int) -> None:
        self._tails = {rank: Tail(ShardFiles(shards, rank).journal) for rank in range(ranks)}
        self._read_at = 0.0

    def table(self) -> Table | None:
        """Return a line for each rank, of many ranks for those with the fewest labels; None before the first label."""
        if time.monotonic() - self._read_at > _PERIOD:
            self._read_at = time.monotonic()
            for tail in self._tails.values():
                tail.read()
        here = {rank: tail for rank, tail in self._tails.items() if tail.labels}
        if not here:
            return None
        shown = sorted(sorted(here, key=lambda rank: here[rank].labels)[:_MOST_RANKS])
        lines = Table.grid(padding=(0, 2))
        for rank in shown:
            tail = here[rank]
            name = shorten(visible(tail.last, False), _NAME_ROOM, "…")
            lines.add_row(
                Text(f"  rank {rank}"),
                Text(f"{tail.labels:,} labels", "dim"),
                Text(f"task {tail.task}", "dim"),
                Text(name),
            )
        if len(here) > len(shown):
            lines.add_row(Text(f"  those with the fewest labels of {len(here)} ranks", "dim"))
        return lines

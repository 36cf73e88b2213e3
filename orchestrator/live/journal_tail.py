"""What is new in the journals of the shards that grow in a folder: from offsets that are known to new records."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.journal import JournalPart, read_journal_from
from aclcmp.labeling.shard.shard_files import ShardFiles, shards_in

_MOST_BYTES = 4 << 20
"""Of all journals, for each call."""
_AT_ONCE = 256 << 10
"""Of one journal, for each call."""


@dataclass(frozen=True, slots=True)
class ShardNews:
    """What is new in one shard."""

    files: ShardFiles
    grown: JournalPart


def read_news(folder: Path, ranks: frozenset[int], known: Mapping[ShardFiles, int]) -> list[ShardNews]:
    """Read on in the journals of these ranks, those of which least was read first; at most 4 MiB of all together."""
    found: list[ShardNews] = []
    room = _MOST_BYTES
    shards = [files for files in shards_in(folder) if files.rank in ranks]
    for files in sorted(shards, key=lambda files: known.get(files, 0)):
        if room <= 0:
            break
        offset = known.get(files, 0)
        with suppress(OSError, ShardFormatError):  # not there yet, or damaged: the comparison at the end will say so
            grown = read_journal_from(files.journal, offset, min(_AT_ONCE, room))
            if grown.offset > offset:
                room -= grown.offset - offset
                found.append(ShardNews(files, grown))
    return found

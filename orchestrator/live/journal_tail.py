"""New records in the journals of growing shards: known offsets go in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.journal import JournalPart, read_journal_from
from aclcmp.labeling.shard.shard_files import ShardFiles, shards_in

_MOST_BYTES = 4 << 20
"""Bytes of all journals together in one call."""
_AT_ONCE = 256 << 10
"""Bytes of one journal in one call."""


@dataclass(frozen=True, slots=True)
class NewRecords:
    """The new records of one shard."""

    files: ShardFiles
    part: JournalPart


def read_new_records(folder: Path, ranks: frozenset[int], known: Mapping[ShardFiles, int]) -> list[NewRecords]:
    """Return the new records of these ranks, at most 4 MiB together; journals of which least was read come first."""
    found: list[NewRecords] = []
    room = _MOST_BYTES
    shards = [files for files in shards_in(folder) if files.rank in ranks]
    for files in sorted(shards, key=lambda files: known.get(files, 0)):
        if room <= 0:
            break
        offset = known.get(files, 0)
        with suppress(OSError, ShardFormatError):  # missing yet, or damaged: the comparison at the end reports it
            part = read_journal_from(files.journal, offset, min(_AT_ONCE, room))
            if part.offset > offset:
                room -= part.offset - offset
                found.append(NewRecords(files, part))
    return found

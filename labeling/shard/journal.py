"""The commit journal: one line for each label, `crc32(json) json`. A label whose line is in it is safe.

The first line is the shard's header; the last line of a shard that was closed in order marks its end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.record import LabelRecord

SCHEMA = 1
_END = "end"
_LOST = "lost"
"""In a rebuilt journal it stands for a line that was damaged."""
_MOST_RANKS = 2**31


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """The process that wrote a shard. `started` is in seconds since the epoch."""

    run_id: str
    rank: int
    world_size: int
    local_rank: int
    process: int
    host: str
    pid: int
    started: float
    versions: dict[str, str] = field(default_factory=dict)
    dump_folders: tuple[str, ...] = ()
    """Absolute folders below which the accelerated library of this process dumps its tensors."""
    schema: int = SCHEMA

    @staticmethod
    def from_json(text: str, where: Path) -> ShardHeader:
        """Read a header. Raises ShardFormatError when it is no shard's header, or of a later schema."""
        try:
            fields: dict[str, Any] = json.loads(text)
            schema = fields["schema"]
            if isinstance(schema, int) and schema > SCHEMA:
                raise ShardFormatError(
                    f"{where} has schema {schema}; this aclcmp reads up to {SCHEMA}: use the version that wrote it"
                )
            header = ShardHeader(**fields | {"dump_folders": tuple(fields.get("dump_folders", ()))})
            numbers = (header.rank, header.world_size, header.local_rank, header.process, header.pid)
            texts = (header.run_id, header.host, *header.versions, *header.versions.values(), *header.dump_folders)
            if (
                not all(isinstance(number, int) and 0 <= number < _MOST_RANKS for number in numbers)
                or not isinstance(header.started, (int, float))
                or not all(isinstance(text, str) for text in texts)
            ):
                raise ValueError
            return header
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ShardFormatError(f"{where} does not begin with the header of a shard") from None

    def to_json(self) -> str:
        """Return the header as one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Journal:
    """The content of a journal: labels in order, whether the shard was closed in order, number of damaged lines."""

    header: ShardHeader
    records: tuple[LabelRecord, ...]
    ended: bool
    damaged: int


class JournalWriter:
    """A journal open for appending. When a call returns, its line is in the page cache and survives this process."""

    def __init__(self, path: Path, header: ShardHeader) -> None:
        """Create the journal. Raises FileExistsError when the file exists, OSError on a full disk."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._size = 0
        try:
            self._append(header.to_json())
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise

    def commit(self, record: LabelRecord) -> None:
        """Append the line of a label. Raises OSError."""
        self._append(record.to_json())

    def note_damage(self, lines: int) -> None:
        """Note how many lines of the journal that this one replaces were damaged. Raises OSError."""
        for _ in range(lines):
            self._append(json.dumps(_LOST))

    def mark_end(self) -> None:
        """Note that the shard was closed in order. Raises OSError."""
        self._append(json.dumps(_END))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, text: str) -> None:
        content = text.encode()
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        if os.write(self._file, line) < len(line):  # a full disk: remove the torn line, so that the next starts clean
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(line)


def read_journal(path: Path) -> Journal:
    """Read a journal, also while it grows. A torn last line was never acknowledged and is ignored; other damage counts.

    Raises ShardFormatError when the first line is not a shard's header, FileNotFoundError when there is no file.
    """
    lines = path.read_bytes().split(b"\n")
    first = _verified_text(lines[0])
    if first is None:
        raise ShardFormatError(f"{path} does not begin with the header of a shard")
    header = ShardHeader.from_json(first, path)
    records: dict[int, LabelRecord] = {}
    ended, damaged = False, 0
    for number, line in enumerate(lines[1:], start=1):
        if not line:
            continue
        text = _verified_text(line)
        if text is None:
            damaged += number < len(lines) - 1
            continue
        try:
            content = json.loads(text)
            if content == _END:
                ended = True
            elif content == _LOST:
                damaged += 1
            else:
                record = LabelRecord.from_fields(content)
                damaged += record.seq in records  # a line that was written twice
                records.setdefault(record.seq, record)
        except (ValueError, TypeError, RecursionError):
            damaged += 1
    return Journal(header, tuple(records.values()), ended, damaged)


@dataclass(frozen=True, slots=True)
class JournalPart:
    """The whole lines of a journal from some byte on; `offset` is the byte from which to read the next time."""

    offset: int
    records: tuple[LabelRecord, ...] = ()
    header: ShardHeader | None = None
    """The header, where this part begins with the first line."""
    ended: bool = False


def read_journal_from(path: Path, offset: int, most: int) -> JournalPart:
    """Read about `most` bytes of a journal from `offset` on, while its process may append to it.

    A last line that is not whole yet is left for the next time; a damaged line is skipped.
    Raises ShardFormatError when the first line is not a shard's header, OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(offset)
        new = file.read(most)
        if len(new) == most:
            new += file.readline()
    *lines, rest = new.split(b"\n")
    header = None
    records: list[LabelRecord] = []
    ended = False
    for number, line in enumerate(lines):
        text = _verified_text(line)
        if offset == number == 0:
            if text is None:
                raise ShardFormatError(f"{path} does not begin with the header of a shard")
            header = ShardHeader.from_json(text, path)
        elif text is not None:
            with suppress(ValueError, TypeError, RecursionError):
                content = json.loads(text)
                if content == _END:
                    ended = True
                else:
                    records.append(LabelRecord.from_fields(content))
    return JournalPart(offset + len(new) - len(rest), tuple(records), header, ended)


def _verified_text(line: bytes) -> str | None:
    """Return the text of a line; None where its checksum is wrong."""
    checksum, _, text = line.partition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    return text.decode("utf-8", "replace")

"""Rebuild a torn or damaged shard into an ordinary sealed one, from its journal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from aclcmp.labeling.errors import ShardError, ShardFormatError
from aclcmp.labeling.shard.files import ShardFiles, parse_segment
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader, is_being_written, read_journal
from aclcmp.labeling.shard.reader import is_sealed, read_bytes, verified
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.segment import Segment


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of it: labels that are whole now, and those that are lost (their records say why)."""

    rebuilt: tuple[Path, ...]
    kept: int
    lost: tuple[LabelRecord, ...]
    damaged: int
    """Lines of the journal that could not be read: labels of which nothing is known."""


def recover(path: Path) -> Recovery:
    """Rebuild the unsealed segments of the shard that `path` (a segment or the journal) belongs to.

    Every rebuilt file replaces the torn one in one step; when anything was lost the torn files stay beside it as
    `*.damaged`. A whole shard is left alone. Raises ShardFormatError when there is no journal.
    """
    files = _shard_of(path)
    if not files.journal.exists():
        raise ShardFormatError(f"{files.journal} does not exist; without it a torn shard cannot be recovered")
    if is_being_written(files.journal):
        raise ShardError(f"{files.stem} is being written by a running process; recover it when that has ended")
    journal = read_journal(files.journal)
    sealed = {number for number in files.segments() if is_sealed(files.segment(number))}
    records = [record if record.segment in sealed else verified(files, record) for record in journal.records]
    torn = sorted({record.segment for record in records} - sealed)
    lost = tuple(now for was, now in zip(journal.records, records, strict=True) if now.error and not was.error)
    for number in torn:
        _rebuild(files, journal.header, number, records, keep_torn=bool(lost or journal.damaged))
    if torn or not journal.ended:
        _replace_journal(files, journal.header, records, keep_old=journal.damaged > 0)
    files.reserve.unlink(missing_ok=True)
    return Recovery(tuple(files.segment(number) for number in torn), len(records) - len(lost), lost, journal.damaged)


def _shard_of(path: Path) -> ShardFiles:
    parsed = parse_segment(path.with_suffix(".h5"))
    if parsed is None:
        raise ShardFormatError(f"{path} is not named like a shard (rank00000.h5)")
    if not path.exists():
        raise ShardError(f"{path} does not exist")
    return parsed[0]


def _rebuild(
    files: ShardFiles, header: ShardHeader, number: int, records: list[LabelRecord], *, keep_torn: bool
) -> None:
    """Write segment `number` anew and put it in place; the records get their new offsets."""
    target = files.segment(number)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    segment = Segment(part)
    for position, record in enumerate(records):
        if record.segment != number:
            continue
        if record.offset is not None:
            offset = segment.add(*record.stored, read_bytes(target, record))
            record = records[position] = replace(record, offset=offset)
        segment.committed(record)
    segment.seal(header, number)
    if keep_torn and target.exists():
        target.replace(target.with_name(target.name + ".damaged"))
    part.replace(target)


def _replace_journal(files: ShardFiles, header: ShardHeader, records: list[LabelRecord], *, keep_old: bool) -> None:
    part = files.journal.with_name(files.journal.name + ".part")
    part.unlink(missing_ok=True)
    writer = JournalWriter(part, header)
    for record in records:
        writer.commit(record)
    writer.end()
    writer.close()
    if keep_old:
        files.journal.replace(files.journal.with_name(files.journal.name + ".damaged"))
    part.replace(files.journal)

"""Rebuild a torn or damaged shard into an ordinary sealed one, from its journal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from aclcmp.labeling.errors import ShardError, ShardFormatError
from aclcmp.labeling.shard.files import ShardFiles, parse_segment
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader, read_journal
from aclcmp.labeling.shard.reader import is_sealed, read_bytes, verified
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.segment import Segment


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of it: labels that are whole now, and those that are lost (their records say why)."""

    rebuilt: tuple[Path, ...]
    kept: int
    lost: tuple[LabelRecord, ...]


def recover(path: Path) -> Recovery:
    """Rebuild the unsealed segments of the shard that `path` (a segment or the journal) belongs to.

    Every rebuilt file replaces the torn one in one step; when labels were lost the torn file stays beside it as
    `*.h5.damaged`. A whole shard is left alone. Raises ShardFormatError when there is no journal.
    """
    files = _shard_of(path)
    if not files.journal.exists():
        raise ShardFormatError(f"{files.journal} does not exist; without it a torn shard cannot be recovered")
    journal = read_journal(files.journal)
    sealed = {number for number in files.segments() if is_sealed(files.segment(number))}
    records = [record if record.segment in sealed else verified(files, record) for record in journal.records]
    torn = sorted({record.segment for record in records} - sealed)
    lost = tuple(now for was, now in zip(journal.records, records, strict=True) if now.error and not was.error)
    for number in torn:
        _rebuild(files, journal.header, number, records, keep_torn=any(r.segment == number for r in lost))
    if torn or not journal.ended:
        _replace_journal(files, journal.header, records)
    return Recovery(tuple(files.segment(number) for number in torn), len(records) - len(lost), lost)


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
            offset = segment.add(record.dtype, record.shape, read_bytes(target, record))
            record = records[position] = replace(record, offset=offset)
        segment.committed(record)
    segment.seal(header, number)
    if keep_torn and target.exists():
        target.replace(target.with_name(target.name + ".damaged"))
    part.replace(target)


def _replace_journal(files: ShardFiles, header: ShardHeader, records: list[LabelRecord]) -> None:
    part = files.journal.with_name(files.journal.name + ".part")
    part.unlink(missing_ok=True)
    writer = JournalWriter(part, header)
    for record in records:
        writer.commit(record)
    writer.end()
    writer.close()
    part.replace(files.journal)

"""Recovery of a torn or damaged shard: it is rebuilt into an ordinary sealed one, from its journal."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aclcmp.labeling.atomic_file import part_path
from aclcmp.labeling.errors import ShardError, ShardFormatError
from aclcmp.labeling.shard.journal import Journal, JournalWriter, ShardHeader, read_journal
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.segment import Segment
from aclcmp.labeling.shard.shard_files import ShardFiles, parse_segment
from aclcmp.labeling.shard.shard_reader import read_bytes, read_shard, sealed_segment, verify_record
from aclcmp.labeling.shard.sync import sync


@dataclass(frozen=True, slots=True)
class Recovery:
    """Result of a recovery: the labels that are whole now, and those that are lost (their records say why)."""

    rebuilt: tuple[Path, ...]
    kept: int
    """Number of labels with whole bytes."""
    lost: tuple[LabelRecord, ...]
    damaged: int
    """Lines of the journal that could not be read: labels of which nothing is known."""


def recover(path: Path) -> Recovery:
    """Rebuild the unsealed and the damaged segments of the shard that `path` (a segment or the journal) belongs to.

    Every rebuilt file replaces the torn one in one step, so that a killed recovery leaves a shard that can be read,
    and recovered again. When anything was lost the torn files stay beside it as `*.damaged`. A whole shard is not
    changed. Raises ShardFormatError when there is no journal, or when the rebuilt shard cannot be read; ShardError when
    a process writes or recovers the shard, or the disk is full.
    """
    files = _shard_of(path)
    if not files.journal.exists():
        raise ShardFormatError(f"{files.journal} does not exist; without it a torn shard cannot be recovered")
    with _lock_alone(files):
        _remove_parts(files)
        try:
            return _recover(files)
        except ShardError:
            raise
        except (OSError, RuntimeError) as error:  # HDF5 raises the latter where it cannot write
            why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            raise ShardError(
                f"{files.stem} cannot be rebuilt ({why}); what was there is unchanged: "
                "free some space, or make the folder writable, and recover again"
            ) from None


def _recover(files: ShardFiles) -> Recovery:
    sealed = {number: found for number in files.segments() if (found := sealed_segment(files.segment(number), number))}
    journal, readable = _journal_of(files, [header for header, _ in sealed.values()])
    before = [record for _, found in sealed.values() for record in found]
    before += [record for record in journal.records if record.segment not in sealed]
    now = [verify_record(files, record) for record in before]
    lost = tuple(new for was, new in zip(before, now, strict=True) if new.error and not was.error)
    records = sorted(now, key=lambda record: record.seq)
    torn = sorted({record.segment for record in now if record.segment not in sealed} | {each.segment for each in lost})
    unnamed = [number for number in files.segments() if number not in sealed and number not in torn]
    if unnamed and not readable:
        raise ShardFormatError(f"{files.journal} cannot be read, and {files.segment(unnamed[0])} is not sealed")
    for number in torn:
        _rebuild(files, journal.header, number, records, keep_torn=bool(lost or journal.damaged))
    for number in unnamed:  # none of its labels was ever acknowledged
        if journal.damaged:
            _keep(files.segment(number))
        files.segment(number).unlink()
    if torn or unnamed or not journal.ended:
        _replace_journal(files, journal.header, records, journal.damaged)
    files.reserve.unlink(missing_ok=True)
    read_shard(files)
    rebuilt = tuple(files.segment(number) for number in torn)
    return Recovery(rebuilt, sum(record.offset is not None for record in records), lost, journal.damaged)


def _journal_of(files: ShardFiles, headers: Sequence[ShardHeader]) -> tuple[Journal, bool]:
    """Return the journal, and whether it could be read. If not, the header comes from a sealed segment."""
    try:
        return read_journal(files.journal), True
    except ShardFormatError:
        if not headers:
            raise
        return Journal(headers[0], (), ended=False, damaged=1), False


@contextmanager
def _lock_alone(files: ShardFiles) -> Iterator[None]:
    """Lock out writers and other recoveries. Raises ShardError where one is at work."""
    while True:
        with files.journal.open("rb+") as journal:
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShardError(
                    f"{files.stem} is being written or recovered by a running process; recover it when that has ended"
                ) from None
            except OSError:
                pass  # some network file systems have no locks
            if os.fstat(journal.fileno()).st_ino == files.journal.stat().st_ino:
                yield
                return  # else another recovery has just replaced it


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
    """Write segment `number` anew and put it in its place; the records get their new offsets."""
    target = files.segment(number)
    part = part_path(target)
    segment = None
    try:
        segment = Segment(part)
        for position, record in enumerate(records):
            if record.segment != number:
                continue
            if record.offset is not None:
                offset = segment.add(*record.stored, read_bytes(target, record))
                record = records[position] = replace(record, offset=offset)
            segment.note_commit(record)
        segment.seal(header, number)
    except BaseException:
        if segment is not None:
            segment.abandon()
        part.unlink(missing_ok=True)
        raise
    _put_in_place(part, target, keep_old=keep_torn)


def _replace_journal(files: ShardFiles, header: ShardHeader, records: list[LabelRecord], damaged: int) -> None:
    part = part_path(files.journal)
    try:
        writer = JournalWriter(part, header)
        try:
            for record in records:
                writer.commit(record)
            writer.note_damage(damaged)
            writer.mark_end()
        finally:
            writer.close()
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _put_in_place(part, files.journal, keep_old=damaged > 0)


def _put_in_place(part: Path, target: Path, *, keep_old: bool) -> None:
    """Replace a file by a finished one in one step, when that is on disk."""
    sync(part)
    if keep_old and target.exists():
        _keep(target)
    part.replace(target)
    sync(target.parent)


def _keep(path: Path) -> None:
    """Keep a file under a second name too: the first free one of `*.damaged`, `*.damaged.1`, ..."""
    for number in range(1000):
        second = path.with_name(f"{path.name}.damaged" + (f".{number}" if number else ""))
        if second.exists() and second.samefile(path):
            return  # a recovery that was killed did it
        with suppress(FileExistsError):
            try:
                os.link(path, second)
            except PermissionError:  # no hard links here
                shutil.copy2(path, second)
            return


def _remove_parts(files: ShardFiles) -> None:
    """Remove temporary files of recoveries that were killed."""
    name = re.compile(re.escape(files.stem) + r"(?:\.\d+)?\.(?:h5|journal)(?:\.[\d-]+)?\.part")
    for path in files.folder.glob(f"{files.stem}*.part"):
        if name.fullmatch(path.name):
            path.unlink(missing_ok=True)

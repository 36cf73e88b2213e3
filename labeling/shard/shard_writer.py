"""The writer of a rank's shard: a journal, and HDF5 segments of about 1 GiB each."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.checksum import payload_checksum
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.segment import Segment
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.sync import BackgroundSync, sync

SEGMENT_BYTES = 2**30
"""A segment is sealed when it holds this much; until then it can only be read through the journal."""
_RESERVE_BYTES = 2**18
_LEAST_BYTES = 2**16
"""Disk space that a segment needs besides its labels."""


class ShardWriter:
    """Stores labels one by one. A label whose `add` returned survives the death of the process at any instant.

    Not thread-safe: the caller serialises. Must not be used in a forked child.
    """

    def __init__(self, folder: Path, header: ShardHeader, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Take the first free shard name of the rank; `header.process` is set accordingly. Raises OSError."""
        process = 0
        while True:
            self.files = ShardFiles(folder, header.rank, process)
            self.header = replace(header, process=process)
            try:
                self._journal = JournalWriter(self.files.journal, self.header)
                break
            except FileExistsError:
                process += 1
        self._segment_bytes = segment_bytes
        self._number = 0
        self._segment: Segment | None = None
        self._unplaced: list[LabelRecord] = []
        """Labels without bytes that no segment's table lists yet."""
        self._whole = True
        """True while every segment so far could be sealed."""
        self._sync = BackgroundSync()
        try:
            self.files.reserve.write_bytes(b"\0" * _RESERVE_BYTES)
        except OSError:  # the disk is full already: each label will fail with that reason
            self.files.reserve.unlink(missing_ok=True)

    def add(self, record: LabelRecord, bits: npt.NDArray[np.uint8]) -> None:
        """Store a tensor's dense bytes (flat, C order) and commit the label, or raise OSError and commit nothing."""
        if self._segment is None:
            self._check_space(len(bits))
        segment = self._open_segment()
        try:
            committed = replace(
                record,
                segment=self._number,
                offset=segment.add(*record.stored_as(len(bits)), bits),
                nbytes=len(bits),
                checksum=payload_checksum(bits),
            )
            self._journal.commit(committed)
        except Exception:
            self._abandon()
            raise
        segment.note_commit(committed)
        if segment.nbytes >= self._segment_bytes:
            with suppress(Exception):  # this label is safe; `close` reports that its segment was abandoned
                self._seal()

    def note(self, record: LabelRecord) -> None:
        """Commit a label without bytes: one that failed, or that names a file. Raises OSError.

        On a full disk the reserve is removed to make room for it.
        """
        record = replace(record, segment=self._number)
        try:
            self._journal.commit(record)
        except OSError:
            self.files.reserve.unlink(missing_ok=True)
            self._journal.commit(record)
        if self._segment is not None:
            self._segment.note_commit(record)
        else:
            self._unplaced.append(record)

    def close(self) -> None:
        """Seal the shard into ordinary HDF5, on disk. Raises OSError; the shard stays readable through its journal."""
        self.files.reserve.unlink(missing_ok=True)
        try:
            if self._unplaced:
                self._open_segment()
            self._seal()
            if not self._whole:
                raise ShardError("a segment could not be sealed")
            self._sync.wait()
            self._journal.mark_end()
            sync(self.files.journal)
            sync(self.files.folder)
        finally:
            self._journal.close()

    def detach(self) -> None:
        """Make sure, in a forked child, that nothing can reach the parent's files any more."""
        if self._segment is not None:
            self._segment.abandon()
        self._journal.close()

    def _check_space(self, nbytes: int) -> None:
        """Raise OSError where the disk has no room for a new segment: each attempt would leave an empty file."""
        disk = os.statvfs(self.files.folder)
        if disk.f_bavail * disk.f_frsize < nbytes + _LEAST_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open_segment(self) -> Segment:
        if self._segment is None:
            try:
                self._segment = Segment(self.files.segment(self._number))
            except BaseException:
                self._number += 1  # HDF5 may still hold the file that it began to create: its name is not used again
                raise
            for record in self._unplaced:
                self._segment.note_commit(record)
            self._unplaced.clear()
        return self._segment

    def _seal(self) -> None:
        if self._segment is None:
            return
        try:
            self._segment.seal(self.header, self._number)
        except Exception:
            self._abandon()
            raise
        sealed = self.files.segment(self._number)
        self._segment = None
        self._number += 1
        self._sync.begin(sealed)

    def _abandon(self) -> None:
        """Abandon the segment after a failure: the journal keeps its labels, and the next label starts another one."""
        assert self._segment is not None
        self._segment.abandon()
        if self._segment.is_empty:
            # not removed: ext4 would give its inode to the next segment, which HDF5 then takes for this one, still open
            with suppress(OSError):
                os.truncate(self.files.segment(self._number), 0)
        else:
            self._whole = False
        self._segment = None
        self._number += 1

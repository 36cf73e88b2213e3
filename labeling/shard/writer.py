"""A rank's shard while it is being written: a journal, and HDF5 segments that roll at about 1 GiB."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.files import ShardFiles
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.segment import Segment, payload_checksum

SEGMENT_BYTES = 2**30
"""A segment is sealed when it holds this much: until then only the journal makes it readable."""
_RESERVE_BYTES = 2**18


class ShardWriter:
    """Stores labels one by one. A label whose `add` returned survives the death of the process at any instant.

    Not thread-safe: the caller serialises. Must not be used after a fork in the child.
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
        try:
            self.files.reserve.write_bytes(b"\0" * _RESERVE_BYTES)
        except OSError:  # the disk is full already: each label will say so
            self.files.reserve.unlink(missing_ok=True)

    def add(self, record: LabelRecord, bits: npt.NDArray[np.uint8]) -> None:
        """Store a tensor's dense bytes (flat, C order) and commit the label, or raise OSError and commit nothing."""
        if self._segment is None:
            self._segment = Segment(self.files.segment(self._number))
        name = (record.task, record.data_id, record.occurrence, record.side)
        offset = self._segment.add(name, record.dtype, record.shape, bits)
        committed = replace(
            record, segment=self._number, offset=offset, nbytes=len(bits), checksum=payload_checksum(bits)
        )
        self._journal.commit(committed)
        self._segment.committed(committed)
        if self._segment.nbytes >= self._segment_bytes:
            self._seal()

    def note(self, record: LabelRecord) -> None:
        """Commit a label without bytes: one that failed, or that names a file. Raises OSError.

        On a full disk the reserve is given up for it.
        """
        record = replace(record, segment=self._number)
        try:
            self._journal.commit(record)
        except OSError:
            self.files.reserve.unlink(missing_ok=True)
            self._journal.commit(record)
        if self._segment is None:
            self._segment = Segment(self.files.segment(self._number))
        self._segment.committed(record)

    def close(self) -> None:
        """Seal the shard into ordinary HDF5. Raises OSError; the journal keeps everything readable then."""
        self.files.reserve.unlink(missing_ok=True)
        self._seal()
        self._journal.end()
        self._journal.close()

    def detach(self) -> None:
        """In a forked child: make sure that nothing this process still does can reach the parent's files.

        HDF5 flushes what it has cached when the process exits; that must land nowhere.
        """
        nowhere = os.memfd_create("aclcmp-detached") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
        for descriptor in self._segment.file_descriptors() if self._segment else []:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        self._journal.close()

    def _seal(self) -> None:
        if self._segment is not None:
            self._segment.seal(self.header, self._number)
            self._segment = None
            self._number += 1

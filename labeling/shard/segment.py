"""One HDF5 file of a shard: datasets at known offsets while it is written, ordinary and self-describing once sealed.

While alive, HDF5 only lays out the file; the bytes are written beside it with pwrite at the offset that HDF5 gave, so
they are in the page cache when `add` returns, and nothing of HDF5's own cached metadata is needed to read them.

A dataset takes HDF5 longer to create than a small tensor takes to write. So small tensors lie one after the other in
blocks, datasets made for many of them; sealing adds a view of each (a virtual dataset) where its own one would be.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5a, h5d, h5f, h5g, h5p, h5s, h5t

from aclcmp.labeling.shard.checksum import pieces_checksum
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.hdf5_types import encode_text, hdf5_type, set_text, text_type
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import dataset_name, escape

_PENDING = b"pending"
_ALIGNED_FROM, _PAGE = 1 << 16, 4096
"""Tensors of so many bytes have datasets of their own, which begin at pages; smaller ones lie in blocks."""
_BLOCK_BYTES = 1 << 20
"""A block has at most so many bytes; the first ones are smaller, for shards of few labels."""
_TEXTS = (
    "data_id",
    "side",
    "dtype",
    "shape",
    "device",
    "call_site",
    "layout",
    "tensor_path",
    "error",
    "level",
    "capture",
    "inputs",
)


@lru_cache(maxsize=256)
def _space(shape: tuple[int, ...]) -> Any:
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


_abandoned: list[Any] = []
"""HDF5 files that could not be closed, and must not be before the process exits."""


@dataclass(slots=True)
class _Block:
    """A dataset of one dimension in which small tensors of one element type lie one after the other."""

    path: bytes
    offset: int
    """Byte offset in the file."""
    nbytes: int
    used: int = 0
    """Bytes of the tensors that are in it, from its first byte on."""


class Segment:
    """An HDF5 file that is being written by this process, from `path` not existing to sealed."""

    def __init__(self, path: Path) -> None:
        """Create the file. Raises OSError."""
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V110)
        access.set_alignment(_ALIGNED_FROM, _PAGE)  # copies into the page cache are faster between aligned pages
        access.set_file_locking(False, True)  # each file has one writer; network file systems refuse locks
        self._h5 = h5f.create(os.fsencode(path), h5f.ACC_EXCL, fapl=access)
        self._h5_descriptor = int(self._h5.get_vfd_handle())
        self._bytes = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._parents = h5p.create(h5p.LINK_CREATE)
        self._parents.set_create_intermediate_group(True)
        self._parents.set_char_encoding(h5t.CSET_UTF8)
        self._contiguous = h5p.create(h5p.DATASET_CREATE)
        self._contiguous.set_layout(h5d.CONTIGUOUS)
        self._contiguous.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        self._contiguous.set_fill_time(h5d.FILL_TIME_NEVER)
        self._contiguous.set_obj_track_times(False)
        # a flat group takes new datasets twice as fast as the tree of groups that sealing moves them into
        self._pending = h5g.create(self._h5, _PENDING)
        self._added = 0
        self._blocks: dict[str, list[_Block]] = {}
        """Blocks of each element type; small tensors are put into the last one."""
        self._place: bytes | _Block = b""
        """The dataset of the tensor that was added last: a name below `_PENDING`, or a block."""
        self._committed: list[tuple[bytes | _Block, LabelRecord]] = []
        self.nbytes = 0

    def add(self, dtype: str, shape: tuple[int, ...], bits: npt.NDArray[np.uint8]) -> int:
        """Store dense bytes (flat, C order); return their byte offset in the file. An empty tensor has the offset 0.

        The label gets into the sealed file only when `note_commit` follows. Raises OSError, e.g. on a full disk.
        """
        nbytes = len(bits)
        if 0 < nbytes < _ALIGNED_FROM:
            self._place = block = self._block_for(dtype, nbytes)
            offset = block.offset + block.used
            block.used += nbytes
        else:
            self._added += 1
            self._place = b"%d" % self._added
            dataset = h5d.create(self._pending, self._place, hdf5_type(dtype), _space(shape), self._contiguous)
            if nbytes == 0:
                return 0
            offset = int(dataset.get_offset())
        done = os.pwrite(self._bytes, bits, offset)
        while done < nbytes:  # one write moves at most 2 GiB
            done += os.pwrite(self._bytes, bits[done:], offset + done)
        self.nbytes += nbytes
        return offset

    def _block_for(self, dtype: str, nbytes: int) -> _Block:
        """Return the block of an element type that has room for so many bytes; a new one is as large as all before."""
        blocks = self._blocks.setdefault(dtype, [])
        if not blocks or blocks[-1].used + nbytes > blocks[-1].nbytes:
            size = min(max(_ALIGNED_FROM, sum(block.nbytes for block in blocks)), _BLOCK_BYTES)
            path = b"/blocks/%s/%d" % (dtype.encode(), len(blocks))
            space = h5s.create_simple((size // DTYPES[dtype].itemsize,))
            dataset = h5d.create(self._h5, path, hdf5_type(dtype), space, self._contiguous, lcpl=self._parents)
            blocks.append(_Block(path, int(dataset.get_offset()), size))
        return blocks[-1]

    def note_commit(self, record: LabelRecord) -> None:
        """Note that the label whose bytes were added last is in the journal, and so belongs into the sealed file."""
        self._committed.append((self._place, record))

    @property
    def is_empty(self) -> bool:
        """True where no label was committed."""
        return not self._committed

    def abandon(self) -> None:
        """Leave the file as it is, readable through the journal: nothing that HDF5 still writes may reach it.

        HDF5 flushes its cache at the latest when the process exits. On a full disk that fails and kills the process (a
        segmentation fault was seen); in a forked child it would corrupt the parent's file. So HDF5 gets another file to
        write to, and is closed here.
        """
        if (
            self._h5.valid
        ):  # after a close the number of its descriptor may belong to another file of the user's process
            nowhere = os.memfd_create("aclcmp") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._h5_descriptor, inheritable=False)
            os.close(nowhere)
        os.close(self._bytes)
        try:
            h5py.File(self._h5).close()
        except (OSError, RuntimeError):  # HDF5 takes a file that it still has open for the next one with the same inode
            _abandoned.append(self._h5)

    def seal(self, header: ShardHeader, number: int) -> None:
        """Write attributes and index, and close: from here on the file needs no journal. Raises OSError."""
        records = [record for _, record in self._committed]
        file = h5py.File(self._h5)
        for place, record in self._committed:
            if record.offset is not None:
                self._put_in_tree(place, record)
        self._pending.close()
        del file[_PENDING]
        table = labels_table(records)
        file.create_dataset("labels", data=table, track_times=False)
        numbers = {"schema": header.schema, "rank": header.rank, "world_size": header.world_size, "segment": number}
        file.attrs.update(numbers, checksum=index_checksum(header.to_json(), number, table), sealed=True)
        texts = {"run_id": header.run_id, "host": header.host, "versions": json.dumps(header.versions)}
        for name, text in (texts | {"header": header.to_json()}).items():
            set_text(file, name, text)
        # find out about a full disk here, where the file can still be abandoned: a flush that fails kills the process
        try:
            os.posix_fallocate(self._bytes, 0, self._h5.get_filesize())
        except OSError as error:
            if error.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EFBIG,
            ):  # other errors: the file system cannot reserve space
                raise
        file.flush()
        file.close()
        os.close(self._bytes)

    def _put_in_tree(self, place: bytes | _Block, record: LabelRecord) -> None:
        """Move the dataset of a label to its place in the tree, or make a view there; write its attributes."""
        # h5py's attrs[...] = ... takes 5 times as long as these calls, and a shard may hold 100,000 datasets
        target = dataset_name(record.task, record.data_id, record.occurrence, record.side).encode()
        if isinstance(place, bytes):
            self._pending.links.move(place, self._h5, target, lcpl=self._parents)
            dataset = h5d.open(self._h5, target)
        else:
            dataset = self._create_view(place, record, target)
        for name, text in (("torch_dtype", record.dtype), ("device", record.device), ("call_site", record.call_site)):
            set_text(dataset, name, text)
        _set_number(dataset, b"seq", h5t.STD_I64LE, record.seq)
        _set_number(dataset, b"time", h5t.IEEE_F64LE, record.time)
        if record.layout is not None:
            set_text(dataset, "layout", record.layout.to_json())
        if record.level:
            set_text(dataset, "level", record.level)
        if record.inputs:
            set_text(dataset, "inputs", _inputs_text(record))
        if record.rows >= 0:
            _set_number(dataset, b"rows", h5t.STD_I64LE, record.rows)
        if record.stored != (record.dtype, record.shape):
            set_text(dataset, "capture", record.capture)
            set_text(dataset, "shape", json.dumps(record.shape))
        if escape(record.data_id) != record.data_id:
            set_text(dataset, "data_id", record.data_id)

    def _create_view(self, block: _Block, record: LabelRecord, target: bytes) -> Any:
        """Create a virtual dataset that shows the part of a block in which a label lies, in its shape."""
        dtype, shape = record.stored
        assert record.offset is not None
        size = DTYPES[dtype].itemsize
        part = h5s.create_simple((block.nbytes // size,))
        part.select_hyperslab(((record.offset - block.offset) // size,), (record.nbytes // size,))
        view = h5p.create(h5p.DATASET_CREATE)
        view.set_obj_track_times(False)
        view.set_virtual(_space(shape), b".", block.path, part)
        return h5d.create(self._h5, target, hdf5_type(dtype), _space(shape), view, lcpl=self._parents)


def _set_number(dataset: Any, name: bytes, kind: Any, number: float) -> None:
    h5a.create(dataset, name, kind, _space(())).write(np.array(number), kind)


def _inputs_text(record: LabelRecord) -> str:
    return json.dumps(record.inputs, ensure_ascii=False)


def index_checksum(header: str, number: int, table: npt.NDArray[np.void]) -> np.uint64:
    """Return the checksum of the header (as JSON) and the table of labels of segment `number`."""
    return np.uint64(pieces_checksum([header.encode(), b"%d" % number, table.tobytes()]))


_NUMBERS: list[tuple[str, str]] = [
    ("task", "<i8"),
    ("occurrence", "<i8"),
    ("seq", "<i8"),
    ("time", "<f8"),
    ("segment", "<i4"),
    ("offset", "<i8"),
    ("nbytes", "<i8"),
    ("checksum", "<u8"),
    ("rows", "<i8"),
]


def labels_table(records: Sequence[LabelRecord]) -> npt.NDArray[np.void]:
    """Return all records as one compound table; `offset` is -1 where a label has no bytes.

    `shape` and `inputs` are JSON, `inputs` "" where there are none.
    """
    columns: dict[str, list[Any]] = {name: [] for name, _ in _NUMBERS}
    texts: dict[str, list[bytes]] = {name: [] for name in _TEXTS}
    for record in records:
        for name, _ in _NUMBERS:
            columns[name].append(getattr(record, name))
        for name in _TEXTS:
            texts[name].append(_cell(record, name))
    columns["offset"] = [-1 if offset is None else offset for offset in columns["offset"]]
    widths = {name: max(map(len, cells), default=1) for name, cells in texts.items()}
    kind = np.dtype([*_NUMBERS, *((name, text_type(width)) for name, width in widths.items())])
    table = np.zeros(len(records), kind)
    for column, numbers in columns.items():
        table[column] = numbers
    for column, cells in texts.items():
        table[column] = cells
    return table


def _cell(record: LabelRecord, name: str) -> bytes:
    if name == "shape":
        return json.dumps(record.shape).encode()
    if name == "layout":
        return record.layout.to_json().encode() if record.layout else b""
    if name == "inputs":
        return encode_text(_inputs_text(record)) if record.inputs else b""
    return encode_text(str(getattr(record, name)))

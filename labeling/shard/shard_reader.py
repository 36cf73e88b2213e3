"""The reader of a shard, sealed or torn: an index of labels, each with the place of its bytes.

Bytes are read by offset, within the bounds of the segment's own file; links out of it are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardError, ShardFormatError
from aclcmp.labeling.shard.checksum import payload_checksum, pieces_checksum
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.labeling.shard.journal import Journal, ShardHeader, read_journal
from aclcmp.labeling.shard.margin_table import MARGIN, read_margin_tables
from aclcmp.labeling.shard.price_table import PRICE, read_price
from aclcmp.labeling.shard.record import GRADIENTS, ROWS, WEIGHTS, LabelRecord
from aclcmp.labeling.shard.row_table import read_row_tables, read_token_texts
from aclcmp.labeling.shard.segment import index_checksum
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.trial import check_opens
from aclcmp.labeling.shard.weight_table import PARAMETERS, read_weight_tables

_WINDOW = 8 << 20


def read_shard(files: ShardFiles) -> ShardIndex:
    """Return the index of a shard. Sealed segments have their own; that of the others comes from the journal.

    Labels whose bytes are not whole are returned as failed, with the reason. Raises ShardFormatError when a file is no
    shard, is of a later schema, holds links to other files, or was damaged after it was sealed.
    """
    journal, unreadable = _journal_of(files)
    headers: dict[int, ShardHeader] = {}
    records: list[LabelRecord] = []
    for number in files.segments():
        path = files.segment(number)
        try:
            segment = _read_segment(path, number)
        except _NotSealedError as error:
            if unreadable is not None:
                raise unreadable from None
            _check_journal_has(path, number, journal, str(error))
            continue
        headers[number] = segment[0]
        records.extend(segment[1])
    if not headers and unreadable is not None:
        raise unreadable
    header = _header_of_all(files, journal, headers)
    notes: list[str] = []
    torn, damaged = False, 0
    if unreadable is not None:
        notes.append(f"{unreadable}; its sealed segments are read, labels of others may be missing")
        torn, damaged = True, 1
    if journal is not None:
        torn_records = [record for record in journal.records if record.segment not in headers]
        records.extend(verify_record(files, record) for record in torn_records)
        torn, damaged = bool(torn_records) or not journal.ended, journal.damaged
        if journal.damaged:
            lines = f"{journal.damaged} damaged line{'s' * (journal.damaged > 1)}"
            notes.append(f"{files.journal.name} has {lines}; labels may be missing")
    records.sort(key=lambda record: record.seq)
    for one, next_one in pairwise(records):
        if one.seq == next_one.seq:
            raise ShardFormatError(
                f"{files.folder / files.stem} holds two labels of number {one.seq}: a file was copied"
            )
    return _with_margins(
        _with_rows(_with_weights(ShardIndex(files, header, tuple(records), tuple(notes), damaged, torn)))
    )


def _with_weights(index: ShardIndex) -> ShardIndex:
    """Take the hashes of weights out of the labels of an index."""
    tables = [record for record in index.records if record.side == WEIGHTS]
    if not tables:
        return index
    labels = tuple(record for record in index.records if record.side != WEIGHTS)
    weights = tuple(read_weight_tables(tables, lambda record: read_label(index, record)))
    lost = sum(record.data_id == PARAMETERS for record in tables) - len(weights)
    notes = (f"{index.files.stem}: hashes of weights are lost",) if lost else ()
    return replace(index, records=labels, weights=weights, notes=(*index.notes, *notes))


def _with_rows(index: ShardIndex) -> ShardIndex:
    """Take the names of rows out of the labels of an index. A label whose names are lost becomes a failed one."""
    tables = [record for record in index.records if record.side == ROWS]
    if not tables and not any(record.rows >= 0 for record in index.records):
        return index
    rows = read_row_tables(tables, partial(read_label, index))
    texts = read_token_texts(tables, partial(read_label, index))
    price = read_price(tables, partial(read_label, index))
    labels = (
        replace(record, offset=None, rows=-1, error=record.error or "the names of its rows are lost")
        if record.rows >= 0 and record.rows not in rows
        else record
        for record in index.records
        if record.side != ROWS
    )
    lost = price is None and any(record.data_id == PRICE for record in tables)
    notes = (f"{index.files.stem}: what quantisation costs is lost",) if lost else ()
    return replace(
        index, records=tuple(labels), rows=rows, token_texts=texts, price=price, notes=(*index.notes, *notes)
    )


def _with_margins(index: ShardIndex) -> ShardIndex:
    """Take the gradients of margins out of the labels of an index; those of which something is lost are left out."""
    tables = [record for record in index.records if record.side == GRADIENTS]
    if not tables:
        return index
    labels = tuple(record for record in index.records if record.side != GRADIENTS)
    margins = tuple(read_margin_tables(tables, partial(read_label, index)))
    lost = sum(record.data_id == MARGIN for record in tables) - len(margins)
    notes = (f"{index.files.stem}: what moved the margins of tokens is lost",) if lost else ()
    return replace(index, records=labels, margins=margins, notes=(*index.notes, *notes))


def read_label(index: ShardIndex, record: LabelRecord) -> npt.NDArray[Any]:
    """Return a label's tensor, in its memory dtype (bfloat16 as uint16 bits) and shape.

    For a label that was not captured in full, return the packed `TensorSummary`, float64. Raises ShardError where the
    bytes are missing or damaged.
    """
    if record.offset is None:
        raise ShardError(f"label {record.data_id!r} of {index.files.stem} has no bytes: {record.error}")
    bits = read_bytes(index.path(record), record)
    if payload_checksum(bits) != record.checksum:
        raise ShardError(f"the bytes of label {record.data_id!r} in {index.path(record)} were damaged")
    dtype, shape = record.stored
    return np.array(bits).view(DTYPES[dtype].memory).reshape(shape)


class _NotSealedError(Exception):
    """The segment is no sealed HDF5 file; only a journal can describe its content."""


def _journal_of(files: ShardFiles) -> tuple[Journal | None, ShardFormatError | None]:
    """Return the journal and the error of reading it; one of them is None, both where there is no journal."""
    try:
        return (read_journal(files.journal) if files.journal.exists() else None), None
    except ShardFormatError as error:
        return None, error


def _header_of_all(files: ShardFiles, journal: Journal | None, segments: Mapping[int, ShardHeader]) -> ShardHeader:
    """Return the header of a shard. Raises ShardFormatError where its files are not all of one process of this rank."""
    found = ({files.journal: journal.header} if journal else {}) | {
        files.segment(n): each for n, each in segments.items()
    }
    if not found:
        raise ShardFormatError(f"{files.folder / files.stem} has neither a sealed segment nor a journal")
    (first, header), *others = found.items()
    for path, other in others:
        if _process_of(other) != _process_of(header):
            raise ShardFormatError(
                f"{path} was written by {_words(other)}, {first.name} beside it by {_words(header)}: "
                "put back the file that belongs there"
            )
    if header.rank != files.rank:
        raise ShardFormatError(
            f"{files.folder / files.stem} was written by rank {header.rank}: it was renamed; put its own files back"
        )
    return header


def _process_of(header: ShardHeader) -> tuple[object, ...]:
    """Return what tells the process that wrote a file from all others."""
    return header.run_id, header.rank, header.process, header.host, header.pid, header.started


def _words(header: ShardHeader) -> str:
    """Name the process that wrote a file."""
    process = f", process {header.process}" if header.process else ""
    return f"rank {header.rank}{process} of run {header.run_id}" + (f" on {header.host}" if header.host else "")


def _check_journal_has(path: Path, number: int, journal: Journal | None, why: str) -> None:
    if journal is None:
        raise ShardFormatError(
            f"{path} cannot be read ({why}) and has no journal beside it: copy both again from where the rank ran"
        )
    # a segment that no line names holds nothing: its rank died, or the disk was full, before its first label
    if journal.ended and any(record.segment == number for record in journal.records):
        raise ShardFormatError(
            f"{path} was damaged after it was sealed ({why}); `aclcmp recover {path}` saves the labels that are whole"
        )


def verify_record(files: ShardFiles, record: LabelRecord) -> LabelRecord:
    """Return the record of a torn segment unchanged if its bytes are whole, else as a failed label."""
    if record.offset is None or record.error:
        return record
    path = files.segment(record.segment)
    problem = _placement_problem(record, path.stat().st_size) if path.exists() else "the file is gone"
    if problem:
        return replace(record, offset=None, error=f"{path.name}: {problem}")
    if _stored_checksum(path, record) != record.checksum:
        return replace(record, offset=None, error=f"bytes in {path.name} do not have the checksum of the journal")
    return record


def _stored_checksum(path: Path, record: LabelRecord) -> int:
    """Return the checksum of a label's bytes in the file, read by windows: a tensor may exceed the memory."""
    with path.open("rb") as file:
        file.seek(record.offset or 0)
        windows = (file.read(min(_WINDOW, record.nbytes - begin)) for begin in range(0, record.nbytes, _WINDOW))
        return pieces_checksum(windows)


def sealed_segment(path: Path, number: int) -> tuple[ShardHeader, list[LabelRecord]] | None:
    """Return header and records of a sealed segment; None where it is not sealed.

    Raises ShardFormatError when it is sealed but cannot be trusted.
    """
    try:
        return _read_segment(path, number)
    except _NotSealedError:
        return None


def read_bytes(path: Path, record: LabelRecord) -> npt.NDArray[np.uint8]:
    """Memory-map a label's bytes, flat. Raises ShardError when the file does not hold all of them."""
    problem = _placement_problem(record, path.stat().st_size) if path.exists() else "the file is gone"
    if problem:
        raise ShardError(f"{path.name}: {problem}")
    if record.nbytes == 0:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, "r", record.offset or 0, (record.nbytes,))


def _placement_problem(record: LabelRecord, file_size: int) -> str:
    """Return what is impossible about the place of a record's bytes, in words; "" where it is possible."""
    dtype = DTYPES.get(record.dtype)
    if dtype is None:
        return f"label {record.data_id!r} has the unknown dtype {record.dtype!r}"
    stored, shape = record.stored
    if record.nbytes != math.prod(shape) * DTYPES[stored].itemsize:
        return f"label {record.data_id!r} has {record.nbytes} bytes, which do not make {shape} of {stored}"
    if record.offset is None or record.offset < 0 or record.offset + record.nbytes > file_size:
        return f"label {record.data_id!r} lies beyond the end of the file: it is truncated"
    return ""


def _read_segment(path: Path, number: int) -> tuple[ShardHeader, list[LabelRecord]]:
    """Return header and records of a sealed segment. Raises _NotSealedError, ShardFormatError."""
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        with path.open("rb") as raw:
            hdf5 = raw.read(8) == b"\x89HDF\r\n\x1a\n"
        words = " ".join(str(error).split())
        raise _NotSealedError(words if hdf5 else "it is not HDF5") from None
    with file:
        try:
            _check_texts(file, path)
            if not file.attrs.get("sealed", False) or "labels" not in file:
                raise _NotSealedError("it is not a sealed shard")
            header_text = decode_text(file.attrs["header"])
            header = ShardHeader.from_json(header_text, path)
            _refuse_links(file, path)
            table = _plain_table(file["labels"], path)
            checksum = file.attrs.get("checksum")  # earlier versions wrote none
            if checksum is not None and checksum != index_checksum(header_text, number, table):
                raise _NotSealedError("the checksum of its table of labels is wrong")
        except ShardFormatError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise _NotSealedError(" ".join(str(error).split())) from None
    try:
        columns = table.dtype.names or ()
        texts: dict[bytes, str] = {}  # each text once: an index of a thousand labels has few different ones
        records = [_from_row(row, columns, number, texts) for row in table.tolist()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ShardFormatError(f"{path}: its table of labels is not one of ours ({error})") from None
    size = path.stat().st_size
    for record in records:
        if record.offset is not None and (problem := _placement_problem(record, size)):
            raise ShardFormatError(f"{path}: {problem}")
    return header, records


def _check_texts(file: h5py.File, path: Path) -> None:
    """Raise _NotSealedError where reading the attributes of a file would hang or crash.

    That can happen with texts of variable length, which earlier versions and h5py write: such a file is tried first.
    """

    def of_variable_length(name: bytes) -> bool | None:
        kind = h5py.h5a.open(file.id, name).get_type()
        return (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()) or None

    if h5py.h5a.iterate(file.id, of_variable_length):
        try:
            check_opens(path)
        except ShardFormatError as error:
            raise _NotSealedError(str(error)) from None


def _plain_table(labels: Any, path: Path) -> Any:
    """Read the table of labels. Raises ShardFormatError when it is not stored plainly in this file."""
    if isinstance(labels, h5py.Dataset):
        properties = labels.id.get_create_plist()
        plain = properties.get_layout() == h5py.h5d.CONTIGUOUS and properties.get_external_count() == 0
        if plain and labels.nbytes <= path.stat().st_size and labels.dtype.names and not labels.dtype.hasobject:
            return labels[:]
    raise ShardFormatError(f"{path}: its table of labels is not one of ours")


def _refuse_links(file: h5py.File, path: Path) -> None:
    """Raise ShardFormatError for soft and external links, which lead to data that was not recorded."""

    def name_of_link(name: bytes, info: Any) -> bytes | None:
        return None if info.type == h5py.h5l.TYPE_HARD else name

    visit: Callable[..., bytes | None] = file.id.links.visit
    found = visit(name_of_link, info=True)
    if found is not None:
        raise ShardFormatError(f"{path} contains a link to other data ({found.decode(errors='replace')}): refused")


def _from_row(row: tuple[Any, ...], columns: tuple[str, ...], number: int, texts: dict[bytes, str]) -> LabelRecord:
    cells: dict[str, Any] = {
        name: texts.setdefault(cell, cell.decode()) if isinstance(cell, bytes) else cell
        for name, cell in zip(columns, row, strict=True)
    }
    cells["shape"] = list(_shape(cells["shape"]))
    cells["inputs"] = list(_inputs(cells.get("inputs", "")))
    cells.setdefault("rows", -1)
    cells["offset"] = None if cells["offset"] < 0 else cells["offset"]
    cells["segment"] = number
    return LabelRecord.from_fields([cells[each.name] for each in fields(LabelRecord)])


@lru_cache(maxsize=4096)
def _shape(text: str) -> tuple[int, ...]:
    shape = json.loads(text)
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"impossible shape {text!r}")
    return tuple(shape)


@lru_cache(maxsize=4096)
def _inputs(text: str) -> tuple[object, ...]:
    inputs = json.loads(text) if text else []
    if not isinstance(inputs, list):
        raise ValueError(f"impossible inputs {text[:200]!r}")
    return tuple(inputs)

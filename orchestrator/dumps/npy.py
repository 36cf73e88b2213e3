"""numpy's files: `.npy` of versions 1 to 3, and `.npz`, whose stored members are read inside the archive."""

from __future__ import annotations

import ast
import math
import os
import re
import struct
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import (
    DumpedTensor,
    ForeignFormatError,
    NotDumped,
    error_text,
    name_file_in_errors,
    printable,
)
from aclcmp.orchestrator.dumps.archive import DAMAGED, Archive, open_archive
from aclcmp.orchestrator.dumps.format import FileContent, unreadable
from aclcmp.orchestrator.dumps.scratch import Scratch

_MAGIC = b"\x93NUMPY"
_LENGTHS = {1: "<H", 2: "<I", 3: "<I"}
_MAX_HEADER = 1 << 16  # numpy's own reader takes 10,000
_MAX_DIMS = 64  # numpy 2
_MAX_BYTES = 2**62
_DTYPES = {
    **{f"f{size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"i{size}": f"int{8 * size}" for size in (1, 2, 4, 8)},
    **{f"u{size}": f"uint{8 * size}" for size in (1, 2, 4, 8)},
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
    "V2": "bfloat16",
}
_DESCR = re.compile(r"([<>|=]?)([fiubcV][0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class _NpyHeader:
    begin: int
    """The offset of the first element."""
    dtype: str
    shape: tuple[int, ...]
    big: bool
    fortran: bool
    warnings: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def read_npy(path: str, scratch: Scratch) -> FileContent:
    """Return the tensor of a `.npy` file, given without links; it is copied if it is big-endian or in Fortran order.

    Raises ForeignFormatError when it cannot be read: damaged, or not of numbers.
    """
    with name_file_in_errors(path), Path(path).open("rb") as file:
        tensor = _locate(file, path, printable(path), 0, os.fstat(file.fileno()).st_size, scratch)
    return FileContent((("", tensor),))


def read_npz(path: str, scratch: Scratch) -> FileContent:
    """Return the tensors of a `.npz` file; compressed ones are extracted.

    Raises ForeignFormatError when the archive cannot be read.
    """
    with open_archive(path) as archive:
        tensors = [
            (member.filename.removesuffix(".npy"), _member(archive, member, scratch)) for member in archive.members
        ]
    return FileContent(tuple(tensors), in_call_order=True)


def _member(archive: Archive, member: zipfile.ZipInfo, scratch: Scratch) -> DumpedTensor | NotDumped:
    where = f"{printable(archive.path)} ({printable(member.filename)})"
    try:
        if not member.filename.endswith(".npy"):
            raise ForeignFormatError(f"{where}: is no .npy file")
        if member.compress_type == zipfile.ZIP_STORED:
            begin = archive.begin(member)
            archive.check_sum(member, begin)
            return _locate(archive.file, archive.path, where, begin, begin + member.file_size, scratch)
        with archive.unpack(member) as stream:
            extracted = scratch.extract(stream, member.file_size, archive.path)
        with extracted.open("rb") as file:
            tensor = _locate(file, str(extracted), where, 0, member.file_size, scratch, archive.path)
        return replace(tensor, warnings=("compressed; a copy is compared", *tensor.warnings))
    except ForeignFormatError as error:
        return unreadable(error, archive.path, where)
    except DAMAGED as error:
        return NotDumped(f"{where}: is damaged ({error_text(error)})", unreadable=True)


def _locate(
    file: BinaryIO, path: str, where: str, begin: int, end: int, scratch: Scratch, of: str = ""
) -> DumpedTensor:
    """Return the tensor whose header begins at `begin` and whose bytes must end by `end`.

    `of` is the user's file that `path` was unpacked from, if any.
    """
    header = _read_header(file, where, begin, end)
    missing = header.begin + header.nbytes - end
    if missing > 0:
        raise ForeignFormatError(f"{where}: is truncated: {missing} of its {header.nbytes} bytes are missing")
    warnings = header.warnings
    if missing < 0:
        warnings += (f"{-missing} bytes after the tensor are not read",)
    if not header.nbytes or not (header.big or header.fortran):
        return DumpedTensor(path, header.begin, header.dtype, header.shape, warnings=warnings)
    memory = DTYPES[header.dtype].memory.newbyteorder(">" if header.big else "<")
    what = " and ".join(["big-endian"] * header.big + ["in Fortran order"] * header.fortran)
    order: Literal["F", "C"] = "F" if header.fortran else "C"
    copy = scratch.copy_from_file(
        file,
        lambda pages: np.ndarray(header.shape, memory, pages, header.begin, order=order),
        header.dtype,
        f"{what}; a copy is compared",
        of or path,
    )
    return replace(copy, warnings=(*copy.warnings, *warnings))


def _read_header(file: BinaryIO, where: str, begin: int, end: int) -> _NpyHeader:
    file.seek(begin)
    start = file.read(min(12, max(end - begin, 0)))
    version = start[6] if len(start) > 6 else 0
    if not start.startswith(_MAGIC) or version not in _LENGTHS:
        raise ForeignFormatError(f"{where}: is no .npy file of version 1, 2 or 3")
    form = _LENGTHS[version]
    first = 8 + struct.calcsize(form)
    if len(start) < first:
        raise ForeignFormatError(f"{where}: is truncated within its header")
    (length,) = struct.unpack(form, start[8:first])
    if length > _MAX_HEADER or begin + first + length > end:
        raise ForeignFormatError(f"{where}: its header of {length} bytes is truncated, or too long for a tensor's")
    file.seek(begin + first)
    fields = _fields(file.read(length), "utf-8" if version == 3 else "latin-1")
    if fields is None:
        raise ForeignFormatError(f"{where}: its header is not numpy's")
    return _parse_fields(fields, where, begin + first + length)


@lru_cache(maxsize=256)  # the files of a folder have few shapes
def _fields(text: bytes, encoding: str) -> dict[str, Any] | None:
    try:
        fields = ast.literal_eval(text.decode(encoding).strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and set(fields) == {"descr", "fortran_order", "shape"} else None


def _parse_fields(fields: dict[str, Any], where: str, begin: int) -> _NpyHeader:
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    named = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    dtype = _DTYPES.get(named[2]) if named else "complex32" if descr == [("r", "<f2"), ("i", "<f2")] else None
    if dtype is None:
        raise ForeignFormatError(
            f"{where}: elements of type {printable(str(descr))[:80]} cannot be compared; save numbers"
        )
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMS or not isinstance(fortran, bool):
        raise ForeignFormatError(f"{where}: its header states no shape")
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ForeignFormatError(f"{where}: its header states an impossible shape")
    if math.prod(max(size, 1) for size in shape) * DTYPES[dtype].itemsize > _MAX_BYTES:
        raise ForeignFormatError(f"{where}: its shape is more than any file holds")
    big = bool(named) and named is not None and named[1] == ">" and DTYPES[dtype].itemsize > 1
    fortran = fortran and sum(size > 1 for size in shape) > 1
    void = ("2-byte elements without a type, taken as bfloat16: numpy stores that so",) if dtype == "bfloat16" else ()
    return _NpyHeader(begin, dtype, shape, big, fortran, void)

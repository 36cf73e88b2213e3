"""The files that ATB's probes write: lines of `name=value`, then the bytes of a tensor. Only the headers are read.

A file that was dumped again holds several tensors with their headers, one after another.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import (
    DumpedTensor,
    ForeignFormatError,
    error_text,
    name_file_in_errors,
    printable,
)
from aclcmp.orchestrator.dumps.atb.codes import AS_GIVEN, DTYPE_NAMES, FRACTAL_NZ, ND, PRIVATE

HEADER_BEGIN = b"$Version="
_END = ("$End", "$END")
_KNOWN = ("$Object.Length", "$Object.data")

_OTHER_TENSOR = re.compile(r"([0-9]+(?:_[0-9]+)*)_((?:(in)|out)tensor[0-9]+\.bin)")
"""A reference of msprobe's probe to a tensor that it has stored before: the ids of its operations, then its file."""

_MAX_LINES = 8_000  # as the library's own reader
_MAX_HEADER = 1 << 20
_MAX_TENSORS = 10_000
_MAX_HOPS = 4
_MAX_DIMS = 32  # numpy 1
_MAX_BYTES = 2**62


def read_atb(path: Path, within: Path) -> tuple[DumpedTensor, ...]:
    """Return the tensors of one file, in the order in which they were written; at least one.

    `within` is the folder that neither the file, nor another file that it points to (the probe writes equal tensors
    once), may leave by links or `..`. A tensor that can be read but is odd has `warnings`. Raises ForeignFormatError
    when any tensor in the file cannot be read.
    """
    with name_file_in_errors(str(path)):
        try:
            return _read(os.path.realpath(path), os.path.realpath(within), (), {})
        except ValueError as error:  # a name with a NUL in it
            raise ForeignFormatError(f"{printable(str(path))}: {error_text(error)}") from error


def execution_folder(path: Path) -> Path:
    """Return the folder of one execution, `{id}_{operation}/.../{before,after}/` above a file; else the file's own."""
    folder = path.parent
    if folder.name.lower() in ("before", "after"):
        above = folder.parent
        while re.match(r"[0-9]+_", above.name):
            folder = above = above.parent
    return folder


@dataclass(frozen=True, slots=True)
class _AtbHeader:
    """The header of one tensor."""

    path: str
    where: str
    """The file and the place in it, for messages."""
    end: int
    """The first byte after the header."""
    fields: dict[str, str]

    def damage_error(self, what: str) -> ForeignFormatError:
        return _damage_error(self.where, what)

    def number(self, name: str, default: int | None = None) -> int:
        if name not in self.fields and default is not None:
            return default
        (number,) = self.numbers(name, 1)
        return number

    def numbers(self, name: str, count: int | None = None) -> tuple[int, ...]:
        """Return the numbers of a list with commas: exactly `count`, or any number of them."""
        text = self.fields.get(name)
        if text is None:
            raise self.damage_error(f"the header has no {name}")
        parts = text.split(",") if text else []
        if not all(re.fullmatch(r"-?[0-9]{1,19}", part) for part in parts) or count not in (None, len(parts)):
            raise self.damage_error(f"{name}={text[:80]!r} is no number or list of them")
        return tuple(map(int, parts))

    def dtype(self) -> str:
        code = self.number("dtype")
        name, dtype = DTYPE_NAMES.get(code, ("unknown", ""))
        if not dtype:
            raise ForeignFormatError(
                f"{self.where}: dtype {name} (code {code}) is not supported yet; label a tensor of another type"
            )
        return dtype

    def shape(self, itemsize: int) -> tuple[int, ...]:
        shape = self.numbers("dims")
        if len(shape) > _MAX_DIMS or any(size < 0 for size in shape):
            raise self.damage_error(f"dims={self.fields['dims'][:80]} is no shape")
        if math.prod(max(size, 1) for size in shape) * itemsize > _MAX_BYTES:
            raise self.damage_error(f"dims={self.fields['dims'][:80]} is more than any file holds")
        return shape

    def layout(self) -> tuple[bool, tuple[str, ...]]:
        """Return whether the elements lie in FRACTAL_NZ order, and warnings on the format."""
        code = self.number("format", ND)
        if code == FRACTAL_NZ or code in AS_GIVEN:
            return code == FRACTAL_NZ, ()
        return False, (f"format {PRIVATE.get(code, f'{code} (unknown)')} is compared in its storage order",)


def _read(
    path: str, within: str, trail: tuple[str, ...], known: dict[str, tuple[DumpedTensor, ...]]
) -> tuple[DumpedTensor, ...]:
    """Read a file by its real path. `trail` are the files that pointed here, `known` those already read."""
    if os.path.commonpath((path, within)) != within:
        raise ForeignFormatError(
            f"{printable(path)}: lies outside {printable(within)}, which is refused; copy it into there"
        )
    if path in known:
        return known[path]
    tensors: list[DumpedTensor] = []
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        begin: int | None = 0
        while begin is not None:
            if len(tensors) == _MAX_TENSORS:
                raise ForeignFormatError(f"{printable(path)}: holds more than {_MAX_TENSORS} tensors; dump it again")
            where = printable(path) + (f" (tensor {len(tensors) + 1}, at byte {begin})" if begin else "")
            header = _read_header(file, begin, path, where)
            tensor, begin = _locate(file, size, header)
            if tensor is None:
                tensor = _follow(header, within, trail, known)
            tensors.append(tensor)
    known[path] = tuple(tensors)
    return known[path]


def _open(path: str) -> BinaryIO:
    with name_file_in_errors(path):  # not blocking: the name may be a pipe's
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ForeignFormatError(f"{printable(path)}: is no regular file; name the file of a tensor")
    return os.fdopen(descriptor, "rb")


def _read_header(file: BinaryIO, begin: int, path: str, where: str) -> _AtbHeader:
    file.seek(begin)
    fields: dict[str, str] = {}
    left = _MAX_HEADER
    for number in range(1, _MAX_LINES + 1):
        line = file.readline(left)
        left -= len(line)
        if not line.endswith(b"\n"):
            if not left:
                break
            raise _damage_error(where, f"the file ends in line {number} of the header")
        name, equals, value = line[:-1].decode("utf-8", "surrogateescape").partition("=")
        if name in _END:
            return _AtbHeader(path, where, begin + _MAX_HEADER - left, fields)
        if not equals or not name:
            raise _damage_error(where, f"line {number} of the header, {line[:80]!r}, is no name=value")
        if name.startswith("$") and name not in _KNOWN:
            continue
        if name in fields:
            raise _damage_error(where, f"the header repeats {name[:80]!r}")
        fields[name] = value
    raise _damage_error(where, f"the header does not end within {_MAX_LINES} lines and {_MAX_HEADER} bytes")


def _damage_error(where: str, what: str) -> ForeignFormatError:
    return ForeignFormatError(f"{where}: {what}; if ATB did dump it, dump it again")


def _locate(file: BinaryIO, size: int, header: _AtbHeader) -> tuple[DumpedTensor | None, int | None]:
    """Return the tensor of a header, None if another file holds its bytes, and where the next header begins, if any.

    The shape counts, not the stated length: Huawei's own test files state wrong lengths.
    """
    dtype = header.dtype()
    itemsize = DTYPES[dtype].itemsize
    shape = header.shape(itemsize)
    need = math.prod(shape) * itemsize
    total = header.number("$Object.Length")
    start, length = header.numbers("$Object.data", 2) if "$Object.data" in header.fields else (0, total)
    if min(start, length) < 0 or start + length > total:
        raise header.damage_error(f"its data ({start} + {length} bytes) are not within the {total} bytes of all")
    fractal_nz, warnings = header.layout()
    offset = header.end + start
    stop, stated = offset + need, header.end + total
    again = stated != stop and _is_header_at(file, size, stated)
    if need and total == 0 and "$Object.data" not in header.fields:
        if "data" in header.fields:
            return None, header.end if _is_header_at(file, size, header.end) else None
        raise ForeignFormatError(f"{header.where}: holds no data; the library had none when it was dumped")
    available = stated if again else size
    if stop > available:
        raise header.damage_error(f"is truncated: {stop - available} of its {need} bytes are missing")
    if length != need:
        warnings += (f"the header states {length} bytes of data; the shape's {need} are taken",)
    following = stated if again else stop if _is_header_at(file, size, stop) else None
    if following is None and size > stop and _holds_header_after(file, header.end):
        raise header.damage_error("another tensor begins before this one ends: its dump was interrupted")
    rest = size - max(stop, stated)
    if following is None and rest > 0:
        warnings += (f"{rest} bytes after the tensor are no further tensor; was a dump interrupted?",)
    return DumpedTensor(header.path, offset, dtype, shape, fractal_nz, warnings), following


def _is_header_at(file: BinaryIO, size: int, position: int) -> bool:
    """Tell whether a header begins at `position`, which may lie beyond the file."""
    if position >= size:
        return False
    file.seek(position)
    return file.read(len(HEADER_BEGIN)) == HEADER_BEGIN


def _holds_header_after(file: BinaryIO, position: int) -> bool:
    """Tell whether a header begins anywhere after `position`, which lies within the file."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(HEADER_BEGIN, position) >= 0


def _follow(
    header: _AtbHeader, within: str, trail: tuple[str, ...], known: dict[str, tuple[DumpedTensor, ...]]
) -> DumpedTensor:
    """Return the tensor that `header` describes from the file in which the probe left its bytes."""
    target = os.path.realpath(_resolve_pointer(header))
    if target == header.path or header.path.endswith(f"/{header.fields['data']}"):
        raise ForeignFormatError(
            f"{header.where}: was filtered out by the probe (filter_level 2); dump again with filter_level 1"
        )
    trail += (header.path,)
    if target in trail or len(trail) > _MAX_HOPS:
        raise header.damage_error(f"points to {printable(target)}, and so on in circles or too far")
    try:
        found = _read(target, within, trail, known)
    except ForeignFormatError as error:
        raise ForeignFormatError(f"{header.where} points to {error}") from error
    last = found[-1]
    dtype = header.dtype()
    shape = header.shape(DTYPES[dtype].itemsize)
    if last.dtype != dtype or math.prod(last.shape) != math.prod(shape):
        raise header.damage_error(
            f"is {dtype} {list(shape)}, but points to {printable(target)}, which is {last.dtype} {list(last.shape)}"
        )
    fractal_nz, warnings = header.layout()
    warnings += tuple(warning for warning in last.warnings if warning not in warnings)
    if len(found) > 1:
        warnings += ("points to a file that was dumped again; the last of its tensors is taken",)
    return replace(last, shape=shape, fractal_nz=fractal_nz, warnings=warnings)


def _resolve_pointer(header: _AtbHeader) -> Path:
    """Return the file that `data` names: by its path, or by the ids of its operations within this execution."""
    value = header.fields["data"]
    here = Path(header.path).parent
    named = _OTHER_TENSOR.fullmatch(value)
    if named is None or os.path.lexists(here / value):
        return here / value
    folder = execution_folder(Path(header.path))
    own = here.relative_to(folder).parts
    for depth, number in enumerate(named[1].split("_")):
        names = [name for name in own[depth : depth + 1] if name.startswith(f"{number}_")]
        if not names:  # from here on it is another operation than this file's
            own = ()
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.startswith(f"{number}_")]
        if len(names) != 1:
            raise header.damage_error(
                f"stands for {value[:80]}, but {printable(str(folder))} holds {len(names)} {number}_..."
            )
        folder /= names[0]
    return folder / ("before" if named[3] else "after") / named[2]

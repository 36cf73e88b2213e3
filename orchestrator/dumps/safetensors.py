"""`.safetensors` files: eight bytes of length, a header of JSON, the bytes of the tensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import (
    DumpedTensor,
    ForeignFormatError,
    NotDumped,
    name_file_in_errors,
    printable,
)
from aclcmp.orchestrator.dumps.format import FileContent, NamedTensor
from aclcmp.orchestrator.dumps.scratch import Scratch

_MAX_HEADER = 100_000_000  # the limit of the library's own reader
_MAX_TENSORS = 100_000
_MAX_DIMS = 64
_MAX_BYTES = 2**62
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""torch's names by the format's."""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, npt.NDArray[np.generic]]], metadata: Mapping[str, str]
) -> None:
    """Write tensors, each with torch's name of its type and its bits in `DType.memory`. Raises OSError."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, bits) in tensors.items():
        begin, end = end, end + bits.nbytes
        header[name] = {"dtype": _NAMES[dtype], "shape": bits.shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, bits in tensors.values():
            file.write(np.ascontiguousarray(bits).tobytes())


def read_safetensors(path: str, scratch: Scratch | None = None) -> FileContent:
    """Return the tensors of a file in the order of their bytes; none needs a copy in `scratch`.

    Tensors beyond the end of the file, or of a type that cannot be compared, are NotDumped. Raises ForeignFormatError
    when the file cannot be read: its header is damaged, or tensors overlap.
    """
    where = printable(path)
    with name_file_in_errors(path), Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            raise ForeignFormatError(f"{where}: is no .safetensors file, or is truncated within its header")
        text = file.read(length)
    if text.count(b"{") > _MAX_TENSORS:
        raise ForeignFormatError(f"{where}: holds more than {_MAX_TENSORS} tensors; save fewer in one file")
    tensors: list[NamedTensor] = []
    end = 0
    for entry in sorted(_entries(text, where), key=lambda entry: (entry.first, entry.stop)):
        if entry.first < end:
            raise ForeignFormatError(f"{where}: {printable(entry.name)[:200]!r} overlaps another tensor")
        end = entry.stop
        tensors.append((entry.name, _tensor(entry, path, 8 + length, size)))
    return FileContent(tuple(tensors))


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    dtype: str
    """The format's name."""
    shape: tuple[int, ...]
    first: int
    """Where its bytes begin, counted from the end of the header."""
    stop: int


def _entries(text: bytes, where: str) -> list[_Entry]:
    damaged = ForeignFormatError(f"{where}: its header is not that of a .safetensors file")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(header, dict):
        raise damaged
    entries = []
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
            raise damaged
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if not isinstance(dtype, str) or not numbers or len(shape) > _MAX_DIMS:
            raise damaged
        if not all(type(number) is int and 0 <= number <= _MAX_BYTES for number in (*shape, *offsets)):
            raise damaged
        if offsets[0] > offsets[1]:
            raise damaged
        entries.append(_Entry(name, dtype, tuple(shape), *offsets))
    return entries


def _tensor(entry: _Entry, path: str, begin: int, size: int) -> DumpedTensor | NotDumped:
    where = f"{printable(path)} ({printable(entry.name)[:200]})"
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        return NotDumped(f"{where}: dtype {printable(entry.dtype)[:40]} is not supported yet", unreadable=True)
    if math.prod(entry.shape) * DTYPES[dtype].itemsize != entry.stop - entry.first:
        return NotDumped(f"{where}: its bytes do not make {list(entry.shape)} of {entry.dtype}", unreadable=True)
    if begin + entry.stop > size:
        return NotDumped(f"{where}: is truncated: {begin + entry.stop - size} bytes are missing", unreadable=True)
    return DumpedTensor(path, begin + entry.first, dtype, entry.shape)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("repeated")
    return dict(pairs)


def _refuse(text: str) -> None:
    raise ValueError(text)

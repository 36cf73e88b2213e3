"""torch's files: tensors are read inside the archive that `torch.save` wrote, without torch where that can be.

What `torch_pickle.py` does not know, such as sparse tensors and files older than torch 1.6, is left to torch.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from aclcmp.orchestrator.dumps.archive import LONGEST_READ, Archive, open_archive
from aclcmp.orchestrator.dumps.format import FileContent, NamedTensor, Plain, unreadable
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_load import load_with_torch
from aclcmp.orchestrator.dumps.torch_pickle import PickledContent, Storage, StoredTensor, read_pickle

_MOST = 100_000  # values in a file: nested references to one list would make any number of them
_DEPTH = 64
_LONGEST_NAME = 2_000  # letters; a long one would be in the name of each value below it
_Locate = Callable[[Any, str], DumpedTensor | NotDumped | None]
"""Returns the place of a tensor, None for any other value; the text names the tensor in messages."""


def read_torch(path: str, scratch: Scratch) -> FileContent:
    """Return the tensors of a `.pt` or `.pth` file by dotted names; those that cannot be read in place are copied.

    Raises ForeignFormatError when the file cannot be read: damaged, refused by torch's `weights_only`, or torch is
    needed and does not load.
    """
    with name_file_in_errors(path), Path(path).open("rb") as file:
        is_archive = file.read(4) == b"PK\3\4"
    if not is_archive:
        return _file_content(path, *load_with_torch(path, scratch, "no archive", in_place=False))
    with open_archive(path) as archive:
        stored = _StoredTensors(archive, scratch)
        content = stored.read()
        if not content.needs_torch:
            return _file_content(path, content.value, stored.locate)
        is_little = stored.byte_order == b"little"
    return _file_content(path, *load_with_torch(path, scratch, content.needs_torch, in_place=is_little))


def _file_content(path: str, content: Any, locate: _Locate) -> FileContent:
    """Return tensors and plain values of nested containers by dotted names."""
    where = printable(path)
    tensors: list[NamedTensor] = []
    metadata: dict[str, Plain] = {}
    for name, value in list(_leaves(content, where)):  # all at first: a file that is refused costs no copies
        if value is None or isinstance(value, (str, int, float, bool)):
            metadata[name] = value
        elif (tensor := locate(value, f"{where} ({printable(name)[:200]})" if name else where)) is not None:
            tensors.append((name, tensor))
    return FileContent(tuple(tensors), in_call_order=True, metadata=metadata)


def _leaves(content: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield all values that are not containers (dict, list, tuple), by dotted names."""
    pending: list[tuple[str, Any, int]] = [("", content, 0)]
    left = _MOST
    while pending:
        name, value, depth = pending.pop()
        inner: list[tuple[Any, Any]] | None = None
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, (list, tuple)):
            inner = list(enumerate(value))
        if inner is None:
            yield name, value
            continue
        left -= len(inner)
        if left < 0 or depth == _DEPTH:
            raise ForeignFormatError(f"{where}: holds more than {_MOST} values, or one within itself")
        if len(name) > _LONGEST_NAME:
            raise ForeignFormatError(
                f"{where}: has a name longer than {_LONGEST_NAME} letters: {printable(name[:40])}..."
            )
        keyed = [(key if isinstance(key, (str, int, float, bool)) else type(key).__name__, each) for key, each in inner]
        pending.extend((f"{name}.{key}" if name else str(key), each, depth + 1) for key, each in reversed(keyed))


class _StoredTensors:
    """Finds the places of tensors in an archive by what its pickle says of them."""

    def __init__(self, archive: Archive, scratch: Scratch) -> None:
        self._archive = archive
        self._scratch = scratch
        self._where = printable(archive.path)
        self._records = self._find_records()
        self._begins: dict[str, int] = {}
        self.byte_order = self._read("byteorder") if "byteorder" in self._records else b"little"

    def read(self) -> PickledContent:
        """Return what the pickle holds. Raises ForeignFormatError when it is damaged, or torch.save writes no such."""
        if "data.pkl" not in self._records or "constants.pkl" in self._records:
            return PickledContent(None, "an archive that is not torch.save's")
        pickled = self._read("data.pkl")
        try:
            content = read_pickle(pickled)
        except ValueError as error:
            raise ForeignFormatError(f"{self._where}: cannot be read: {error}") from error
        if self.byte_order != b"little":
            return replace(content, needs_torch="the other byte order")
        if zlib.crc32(pickled) != self._records["data.pkl"].CRC:
            return replace(content, needs_torch="a pickle without its checksum")  # torch.save writes them so on demand
        return content

    def locate(self, tensor: Any, where: str) -> DumpedTensor | NotDumped | None:
        """Return the place of a tensor's bytes, in the archive or in a copy; None for any other value."""
        if not isinstance(tensor, StoredTensor):
            return None
        if tensor.storage is None:
            return NotDumped(f"{where}: was saved without its values (device meta)", unreadable=True)
        if 0 in tensor.shape:
            return DumpedTensor(self._archive.path, 0, tensor.dtype, tensor.shape)
        try:
            offset = self._begin_of_storage(tensor.storage) + tensor.offset * DTYPES[tensor.dtype].itemsize
            if tensor.is_dense:
                return DumpedTensor(self._archive.path, offset, tensor.dtype, tensor.shape)
            return self._copy(tensor, offset)
        except ForeignFormatError as error:
            return unreadable(error, self._archive.path, where)
        except (ValueError, MemoryError) as error:
            return NotDumped(f"{where}: {error_text(error)}", unreadable=True)

    def _copy(self, tensor: StoredTensor, offset: int) -> DumpedTensor:
        """Return a dense copy of a view whose first element is at `offset`."""
        memory = DTYPES[tensor.dtype].memory
        sizes_and_strides = zip(tensor.shape, tensor.strides, strict=True)
        steps = [stride * memory.itemsize if size > 1 else 0 for size, stride in sizes_and_strides]
        return self._scratch.copy_from_file(
            self._archive.file,
            lambda pages: np.ndarray(tensor.shape, memory, pages, offset, steps),  # checks that it lies within them
            tensor.dtype,
            "not dense; a copy is compared",
            self._archive.path,
        )

    def _begin_of_storage(self, storage: Storage) -> int:
        """Return the offset of a storage in the file. Raises ForeignFormatError where it is not as the pickle says."""
        record = self._records.get(f"data/{storage.key}")
        if record is None:
            raise ForeignFormatError(f"its bytes, data/{printable(storage.key)[:80]}, are not in the archive")
        itemsize = DTYPES[storage.dtype].itemsize
        if record.file_size // itemsize != storage.size:
            raise ForeignFormatError(
                f"its storage has {record.file_size} bytes, but the pickle states {storage.size * itemsize}"
            )
        if storage.key not in self._begins:
            self._begins[storage.key] = self._archive.begin(record)
        return self._begins[storage.key]

    def _find_records(self) -> Mapping[str, zipfile.ZipInfo]:
        """Return the members by their names without the folder that holds them all.

        Raises ForeignFormatError when one is compressed or there twice.
        """
        records: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ForeignFormatError(
                    f"{self._where}: is compressed, as TorchScript is and no file of torch.save's; save tensors"
                )
            name = member.filename.partition("/")[2]
            if name in records:
                raise ForeignFormatError(f"{self._where}: holds {printable(name)[:80]} twice")
            records[name] = member
        return records

    def _read(self, name: str) -> bytes:
        record = self._records[name]
        if record.file_size > LONGEST_READ:
            raise ForeignFormatError(f"{self._where}: {name} is longer than any of torch.save's; save fewer tensors")
        self._archive.file.seek(self._archive.begin(record))
        return self._archive.file.read(record.file_size)

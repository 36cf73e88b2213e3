"""torch's files, loaded by torch with `weights_only=True`; tensors of an archive are read inside it.

torch maps the file into memory: a tensor's address tells its place in the file, without knowledge of the archive.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import (
    DumpedTensor,
    ForeignFormatError,
    NotDumped,
    printable,
)
from aclcmp.orchestrator.dumps.format import unreadable
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_trial import AUTOLOAD, check_loads

_CHECKED = 64  # bytes


def load_with_torch(
    path: str, scratch: Scratch, why: str, *, in_place: bool
) -> tuple[Any, Callable[[Any, str], DumpedTensor | NotDumped | None]]:
    """Return what torch loads from a file, and a function that finds the place of each tensor in it.

    `in_place` is true for an archive in this byte order: its tensors are not copied; `why` says what torch is needed
    for. Raises ForeignFormatError when the file cannot be read: damaged, refused by `weights_only`, or torch does not
    load. torch loads it first in a process of its own, which ends where that takes far too long.
    """
    where = printable(path)
    _load_torch(where, why)
    check_loads(path, mapped=in_place)
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types that torch will drop
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=in_place)
    except Exception as error:  # a damaged file raises anything
        raise ForeignFormatError(
            f"{where}: torch.load(weights_only=True) refuses it: {_first_sentence(error)}"
        ) from error
    return content, _LoadedTensors(path, scratch, in_place).locate


def _load_torch(where: str, why: str) -> None:
    """Import torch without the devices' backends that it would load by itself.

    Raises ForeignFormatError when there is no torch or it cannot be loaded.
    """
    before = os.environ.get(AUTOLOAD)
    os.environ[AUTOLOAD] = "0"
    try:
        importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise _unloadable(where, why, error) from error
        raise ForeignFormatError(f"{where}: torch is needed to read it ({why}); install torch here") from error
    except Exception as error:  # such as a library of the system that is missing
        raise _unloadable(where, why, error) from error
    finally:
        if before is None:
            del os.environ[AUTOLOAD]
        else:
            os.environ[AUTOLOAD] = before


def _unloadable(where: str, why: str, error: Exception) -> ForeignFormatError:
    return ForeignFormatError(
        f"{where}: torch is needed to read it ({why}) and cannot be loaded ({_first_sentence(error)}); "
        "`aclcmp doctor` tells more"
    )


def _first_sentence(error: Exception) -> str:
    """Return what torch says, without its advice."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    inner = re.search(r"WeightsUnpickler error: (.*)", text)
    sentence = re.split(r"\n|\. |Please", (inner[1] if inner else text).strip())[0]
    return printable(sentence)[:400] or type(error).__name__


class _LoadedTensors:
    """Finds the places in a file of the tensors that torch loaded from it."""

    def __init__(self, path: str, scratch: Scratch, in_place: bool) -> None:
        self._path = path
        self._scratch = scratch
        self._in_place = in_place
        self._mapped: tuple[int, int, int] = (0, 0, 0)

    def locate(self, value: Any, where: str) -> DumpedTensor | NotDumped | None:
        """Return the place of a tensor's bytes, in the file or in a copy; None for any other value."""
        import torch

        if not isinstance(value, torch.Tensor):
            return None
        dtype = str(value.dtype).removeprefix("torch.")
        value = value.detach()
        if type(value) is not torch.Tensor or value.layout != torch.strided or value.is_quantized:
            kind = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
            return NotDumped(f"{where}: is a {type(value).__name__}, {kind}, not a plain tensor", unreadable=True)
        if dtype not in DTYPES:
            return NotDumped(f"{where}: dtype {dtype} is not supported yet", unreadable=True)
        if value.is_meta:
            return NotDumped(f"{where}: was saved without its values (device meta)", unreadable=True)
        shape = tuple(value.shape)
        if math.prod(shape) == 0:
            return DumpedTensor(self._path, 0, dtype, shape)
        dense = value.is_contiguous() and not value.is_conj() and not value.is_neg()
        if dense and self._in_place and (offset := self._offset(value)) is not None:
            return DumpedTensor(self._path, offset, dtype, shape)
        try:
            bits = value.resolve_conj().resolve_neg()
            same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
            bits = bits.view(same_size.get(bits.element_size(), bits.dtype))  # numpy lacks some of torch's types
            why = "not dense" if not dense else "not in an archive of this byte order"
            elements = bits.numpy().view(DTYPES[dtype].memory)
            return self._scratch.copy(elements, dtype, f"{why}; a copy is compared", self._path)
        except ForeignFormatError as error:
            return unreadable(error, self._path, where)
        except (RuntimeError, MemoryError) as error:
            return NotDumped(f"{where}: cannot be copied: {_first_sentence(error)}", unreadable=True)

    def _offset(self, value: Any) -> int | None:
        """Return the offset of the first element in the file, checked on the first bytes; None where not mapped."""
        address = value.data_ptr()
        first, end, begin = self._mapped
        if not first <= address < end:
            self._mapped = first, end, begin = _mapping(self._path, address)
        nbytes = value.numel() * value.element_size()
        offset = address - first + begin
        if not first <= address <= end - nbytes:
            return None
        import torch

        # a single element may have any stride, of which torch makes no view
        first_elements = value.reshape(-1)[:_CHECKED].clone(memory_format=torch.contiguous_format)
        first_bytes = bytes(first_elements.view(torch.uint8)[:_CHECKED].numpy())
        with Path(self._path).open("rb") as file:
            file.seek(offset)
            within = offset + nbytes <= os.fstat(file.fileno()).st_size
            return offset if within and file.read(len(first_bytes)) == first_bytes else None


def _mapping(path: str, address: int) -> tuple[int, int, int]:
    """Return the mapping of a file that holds an address: its first address, its end, its offset in the file."""
    line_end = b" " + os.fsencode(path).replace(b"\n", b"\\012") + b"\n"
    try:
        maps = Path("/proc/self/maps").read_bytes()
    except OSError:  # only Linux has this file
        return 0, 0, 0
    found = maps.find(line_end)
    while found >= 0:
        bounds, _, offset, *_ = maps[maps.rfind(b"\n", 0, found) + 1 : found].split()
        first, end = (int(bound, 16) for bound in bounds.split(b"-"))
        if first <= address < end:
            return first, end, int(offset, 16)
        found = maps.find(line_end, found + 1)
    return 0, 0, 0

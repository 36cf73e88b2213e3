"""Hashes of the rows of a model's parameters: by them each rank says which rows of golden's weights it holds.

A row is hashed as float32, so that a wider type that holds the same values has the same hash. A row of one value (those
of vectors, and of scales of [n, 1]) is its own hash.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from ctypes import c_int64, c_void_p
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from aclcmp.labeling.api import record_weights
from aclcmp.labeling.shard.record import SIDE_NAMES
from aclcmp.labeling.shard.summary_kernel import summary_library
from aclcmp.labeling.shard.weight_table import (
    NOT_ZERO,
    TRANSPOSED,
    HashedParameter,
    Hashes,
    RowForm,
    WeightTable,
    row_length,
)
from aclcmp.labeling.watch.messages import print_once_per_host

_BLOCK = 1 << 20
"""Values that are hashed at a time."""
_LONGEST_SHORT = 240
"""Bytes up to which XXH3 is another function, which the library does not have."""
_SILENT_SECONDS = 5.0
_CASTS = ("bfloat16", "float16")
"""Element types to which loaders cast wider weights."""
_WHOLE_WORDS = ("int32", "uint32", "int64", "uint64", "float64")
"""Types that float32 does not hold: their bytes count."""


def hash_weights(
    model: Any,
    side: str,
    *,
    labels: Mapping[str, str] | None = None,
    widths: Collection[int] | None = None,
    dtypes: Iterable[str] = _CASTS,
    parts: Sequence[int] = (1,),
) -> None:
    """Record the hashes of a model's weights, as long as they are as they were loaded.

    Args:
        model: a torch.nn.Module on any device. Of parameters that modules share one is hashed.
        side: "pta" or "ref" for golden, "acl" for actual.
        labels: ids of labels by the names of their modules, where they are not the same.
        widths: of golden, the lengths of rows that the other side has; by default all.
        dtypes: of golden, the element types of the other side: rows of wider ones are also hashed as these.
        parts: of golden, the numbers of equal parts into which ranks may cut columns.

    Never raises: a parameter that cannot be hashed has the reason instead.
    """
    golden = SIDE_NAMES[side] != "acl"
    cuts = _Cuts(golden, widths, tuple(dtypes), tuple(parts))
    modules = dict(model.named_modules())
    named = list(model.named_parameters())
    owners = defaultdict[int, list[str]](list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)].append(name.rpartition(".")[0])
    total, done, told = sum(_nbytes(each) for _, each in named), 0, time.monotonic()
    found = []
    for name, parameter in named:
        owner = name.rpartition(".")[0]
        kind, label = type(modules.get(owner)).__name__, (labels or {}).get(owner, "")
        tied = tuple((labels or {}).get(each, each) for each in owners[id(parameter)] if each != owner)
        found.append(replace(cuts.parameter(name, parameter, kind, label), tied=tied))
        done += _nbytes(parameter)
        if time.monotonic() - told > _SILENT_SECONDS:
            told = time.monotonic()
            print_once_per_host(f"weights, side {side!r}: {done / 1e9:.1f} of {total / 1e9:.1f} GB are hashed")
    record_weights(WeightTable("pta" if golden else "acl", tuple(found), _packed_modules(model)))


def wanted_of(tables: Iterable[WeightTable]) -> tuple[set[int], set[str]]:
    """Return the lengths of rows, and the element types, of the actual sides among tables."""
    parameters = [each for table in tables if table.side == "acl" for each in table.parameters]
    return {row_length(each.shape) for each in parameters}, {each.dtype for each in parameters}


def _problem(parameter: Any) -> str:
    if parameter.device.type == "meta":
        return "it has no data (it is on the meta device)"
    if not parameter.numel():
        return "it is empty: it was packed before it was looked at"
    if parameter.is_complex() or parameter.is_quantized or parameter.layout.__repr__() != "torch.strided":
        return f"it is a tensor of a kind that is not hashed ({parameter.dtype}, {parameter.layout})"
    return ""


def _nbytes(parameter: Any) -> int:
    with suppress(Exception):  # of a lazy module it has no shape yet
        return int(parameter.numel() * parameter.element_size())
    return 0


def _packed_modules(model: Any) -> dict[str, tuple[str, ...]]:
    """Return what a class of vLLM tells of its fused modules; nothing where that is not what vLLM writes."""
    with suppress(Exception):
        return {str(name): tuple(map(str, parts)) for name, parts in model.packed_modules_mapping.items()}
    return {}


class _Cuts:
    """The forms in which the rows of a side's parameters are hashed."""

    def __init__(
        self, golden: bool, widths: Collection[int] | None, dtypes: tuple[str, ...], parts: tuple[int, ...]
    ) -> None:
        self._golden, self._widths, self._dtypes, self._parts = golden, widths, dtypes, parts

    def parameter(self, name: str, parameter: Any, kind: str, label: str) -> HashedParameter:
        """Return a parameter of a module of class `kind` with its hashes, or with the reason why it has none."""
        dtype, shape, forms = "", (), dict[RowForm, Hashes]()
        try:
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            dtype, shape, problem = str(local.dtype).removeprefix("torch."), tuple(local.shape), _problem(local)
            forms = {} if problem else self.hash(local.detach(), kind in TRANSPOSED)
        except Exception as error:  # whatever it is, the model must go on
            problem = f"it cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return HashedParameter(name, dtype, shape, kind, label, problem, forms)

    def hash(self, parameter: Any, transposable: bool) -> dict[RowForm, Hashes]:
        """Return the hashes of a parameter's rows in all forms."""
        matrix = parameter.reshape(-1, row_length(tuple(parameter.shape)))
        if not self._golden:
            (rows,) = _hash_rows(matrix, (1,))
            return {RowForm(): rows}
        own = str(parameter.dtype).removeprefix("torch.")
        casts = [each for each in self._dtypes if each in _CASTS and each != own and parameter.is_floating_point()]
        turned = None
        if matrix.shape[1] > 1 and (transposable or parameter.ndim == 3):
            turned = parameter.transpose(-1, -2).reshape(-1, parameter.shape[-2])
        found: dict[RowForm, Hashes] = {}
        for dtype in ("", *casts):
            for rows_or_columns, transposed in ((matrix, False), (turned, True)):
                if rows_or_columns is not None:
                    self._add(found, rows_or_columns, dtype, transposed=transposed)
        return found

    def _add(self, found: dict[RowForm, Hashes], matrix: Any, dtype: str, *, transposed: bool) -> None:
        """Add whole rows, and rows cut into parts, as far as they are wanted and a cast changes anything."""
        columns = matrix.shape[1]
        wanted = [
            parts
            for parts in self._parts
            if not columns % parts
            and (parts == 1 or columns > parts)
            and (self._widths is None or columns // parts in self._widths)
        ]
        for parts, hashes in zip(wanted, _hash_rows(matrix, wanted, dtype), strict=True):
            for part, rows in enumerate(hashes.reshape(-1, parts).T):
                uncast = found.get(RowForm("", part, parts, transposed))
                if uncast is None or not np.array_equal(uncast, rows):
                    found[RowForm(dtype, part, parts, transposed)] = np.ascontiguousarray(rows)


def _hash_rows(matrix: Any, parts: Sequence[int], cast: str = "") -> list[Hashes]:
    """Return the hashes of the rows of a tensor [rows, columns], cut into so many parts, in each of these ways."""
    import torch

    rows = max(_BLOCK // matrix.shape[1], 1)
    whole_words = str(matrix.dtype).removeprefix("torch.") in _WHOLE_WORDS
    found: list[list[Hashes]] = [[] for _ in parts]
    for begin in range(0, len(matrix), rows) if parts else ():
        block = matrix[begin : begin + rows]
        block = block.to(getattr(torch, cast)) if cast else block
        if not whole_words or cast:
            block = block.to(torch.float32)
        values = block.contiguous().cpu().numpy()
        for number, hashes in zip(parts, found, strict=True):
            hashes.append(hash_block(values.reshape(-1, values.shape[1] // number)))
    return [np.concatenate(each) for each in found]


def hash_block(block: npt.NDArray[Any]) -> Hashes:
    """Return the hash of each row of dense values, shape (rows, columns), float32 or of whole words."""
    width = block.shape[1]
    if width == 1 and block.itemsize == 4:
        bits = block.reshape(-1).view(np.uint32).astype(np.uint64)
        return np.where(bits == 0, np.uint64(1), bits | np.uint64(NOT_ZERO))
    hashes = _digests(block.view(np.uint8))
    zero = xxh3_64_intdigest(bytes(width * block.itemsize))
    return np.where(hashes == np.uint64(zero), np.uint64(width), hashes | np.uint64(NOT_ZERO))


def _digests(rows: npt.NDArray[np.uint8]) -> Hashes:
    """Return XXH3 of each row: by the library of the kernels if that is built already, several times as fast."""
    count, size = rows.shape
    library = summary_library() if size > _LONGEST_SHORT else None
    if library is None:
        return np.fromiter(map(xxh3_64_intdigest, rows), np.uint64, count)
    hashes = np.empty(count, np.uint64)
    addresses = rows.ctypes.data + np.arange(count, dtype=np.int64) * size
    sizes = np.full(count, size, np.int64)
    pointers = (each.ctypes.data_as(c_void_p) for each in (addresses, sizes))
    library.hash_pieces(*pointers, c_int64(count), hashes.ctypes.data_as(c_void_p))
    return hashes

"""Texts, attributes and tables as report.h5 stores them, and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.hdf5_types import decode_text, encode_text, set_text, text_type
from aclcmp.labeling.shard.plain import check_dataset
from aclcmp.labeling.shard.shard_files import escape
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.report.flat import Scalar

Columns = Mapping[str, tuple[type[Scalar], Sequence[Any]]]
"""Name -> (type, values), all values of the same length."""

DESCRIPTION = "description"
"""Attribute of each group and table: what it is for."""

_LONGEST_FIXED = 1024
_MOST_PADDED = 64 << 20
"""Bytes that longer texts may take when each takes as much room as the longest."""
_LARGE = 1 << 20
_MOST_KNOWN = 16_384
PACKED: dict[str, Any] = {"chunks": True, "shuffle": True, "compression": "gzip", "compression_opts": 1}
"""gzip level 1: of 80,000 rows the higher levels save a tenth of the bytes for three times the time."""
_LOG_SCALE = '{"signal_scale_type": "log"}'
"""How silx and h5web are asked for a logarithmic scale: errors lie between 1e-8 and 1."""
_NUMPY: dict[type[Scalar], str] = {int: "i8", float: "f8", bool: "?"}


def write_texts(group: Any, name: str, texts: Sequence[str]) -> None:
    """Write texts as a dataset of fixed-length UTF-8."""
    array = _array(str, texts)
    group.create_dataset(name, data=array, **(PACKED if array.nbytes > _LARGE else {}))


def write_attributes(owner: Any, values: Mapping[str, Scalar | npt.NDArray[np.int64]]) -> None:
    """Set attributes; texts become fixed-length UTF-8."""
    for name, value in values.items():
        if isinstance(value, str):
            set_text(owner, name, value)
        else:
            owner.attrs[name] = value


def write_nxdata(
    parent: h5py.Group,
    name: str,
    title: str,
    signals: Mapping[str, npt.NDArray[Any]],
    axes: Mapping[str, npt.NDArray[Any]],
    *,
    pack: bool = False,
) -> h5py.Group:
    """Write a group that NeXus viewers draw on a logarithmic scale: the first signal over the axes; return it."""
    group = parent.create_group(name)
    for dataset, values in {**signals, **axes}.items():
        group.create_dataset(dataset, data=values, **(PACKED if pack else {}))
    signal, *others = signals
    write_attributes(group, {"NX_class": "NXdata", "signal": signal, "title": title, "SILX_style": _LOG_SCALE})
    group.attrs.create("axes", _array(str, list(axes)))
    if others:
        group.attrs.create("auxiliary_signals", _array(str, others))
    return group


def link_name(parent: h5py.Group, key: LabelKey, rank: int | None = None) -> str:
    """Return a free name in a group for what is told of a label: its id, as HDF5 allows, and what sets it apart."""
    name = decode_text(encode_text(escape(key.label))) or "(no name)"
    name += f" #{key.occurrence}" if key.occurrence else ""
    name += f", task {key.task}" if key.task else ""
    name += "" if rank is None else f", rank {rank}"
    while name in parent:  # another label is called so
        name += "'"
    return name


def write_table(group: Any, name: str, columns: Columns) -> None:
    """Write columns as one compound dataset, such that `pandas.DataFrame(group[name][:])` works.

    A column of texts has a fixed width, which compresses, unless one long text among many would take 64 MiB for all.
    """
    arrays = {column: _array(kind, values) for column, (kind, values) in columns.items()}
    table = np.empty(len(next(iter(arrays.values()))), np.dtype([(c, a.dtype) for c, a in arrays.items()]))
    for column, array in arrays.items():
        table[column] = array
    group.create_dataset(name, data=table, **(PACKED if len(table) else {}))


def _array(kind: type[Scalar], values: Sequence[Any]) -> npt.NDArray[Any]:
    if kind is not str:
        return np.array(values, dtype=_NUMPY[kind])
    texts = [encode_text(text) for text in values]
    return np.array(texts, dtype=column_type(max(map(len, texts), default=1), len(texts)))


def column_type(width: int, count: int) -> np.dtype[Any]:
    """Return the type of a column of `count` texts, the longest of which has so many bytes."""
    if width <= _LONGEST_FIXED or width * count <= _MOST_PADDED:
        return text_type(width)
    found: np.dtype[Any] = h5py.string_dtype("utf-8")
    return found


def read_columns(file: h5py.Group, name: str) -> dict[str, list[Any]]:
    """Read a table column by column, texts decoded. Raises ValueError for a link, or for what is not there."""
    return columns_of(own_dataset(file, name)[:], {})


def columns_of(table: npt.NDArray[np.void], known: dict[str, dict[Any, str]]) -> dict[str, list[Any]]:
    """Return rows of a table column by column, texts decoded; `known` keeps those of each column, to be shared."""
    columns = {}
    for column in table.dtype.names or ():
        values = table[column].tolist()
        if table.dtype[column].kind in "SO":
            texts = known.setdefault(column, {})
            if len(texts) > _MOST_KNOWN:
                texts.clear()
            texts.update((value, decode_text(value)) for value in set(values) - texts.keys())
            values = [texts[value] for value in values]
        columns[column] = values
    return columns


def read_table(file: h5py.Group, name: str) -> list[dict[str, Any]]:
    """Read a table row by row, as `read_columns` does."""
    columns = read_columns(file, name)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def own_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Return a group of the file itself; raises ValueError for a link, which could lead to any file of the machine."""
    return _own(parent, name, h5py.Group)


def own_dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of the file itself; raises ValueError for a link, and where it is not stored plainly."""
    found = _own(parent, name, h5py.Dataset)
    check_dataset(name, found)
    return found


def _own(parent: h5py.Group, name: str, kind: type[Any]) -> Any:
    if name not in parent:
        raise ValueError(f"it has no {name}")
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    found = parent[name]
    if not isinstance(found, kind):
        raise ValueError(f"{name} is no {kind.__name__.lower()}")
    return found

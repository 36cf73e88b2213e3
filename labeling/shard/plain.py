"""Checks that an HDF5 file is stored plainly: all data lies in the file itself and unpacks to a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5z

_PACKING = {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE}
_ALWAYS = 512 << 20
_TABLE_ALWAYS = 32 << 20  # each row of a table becomes Python objects
_RATIO = 256  # our own tables pack to a thirtieth, zeros to a thousandth
_CHUNK = 16 << 20
_WINDOW = 4 << 20


def check_plain(file: h5py.File) -> None:
    """Raise ValueError for links, bytes in other files, unknown packing, and data that would take too much memory.

    The bounds hold for each dataset and for all together: 512 MiB (a table 32 MiB), or 256 times the bytes in the file
    where that is more.
    """
    size = _size(file)
    found = dict(datasets(file))
    unpacked = sum(
        int(dataset.nbytes) if _is_view(dataset, found) else check_dataset(name, dataset)
        for name, dataset in found.items()
    )
    if unpacked > max(_ALWAYS, _RATIO * size):
        raise ValueError(f"it would unpack to {unpacked} bytes")


def datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield (path, dataset) for all datasets. Raises ValueError for a link, or for an object with two names."""
    pending = [("", file["/"])]
    addresses = {h5py.h5o.get_info(file.id).addr}
    while pending:
        above, group = pending.pop()
        for name in group:
            path = f"{above}/{name}"
            if group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type != h5l.TYPE_HARD:
                raise ValueError(f"{path[1:]} is a link")
            found = group[name]
            address = h5py.h5o.get_info(found.id).addr
            if address in addresses:
                raise ValueError(f"{path[1:]} is there under two names")
            addresses.add(address)
            if isinstance(found, h5py.Group):
                pending.append((path, found))
            elif isinstance(found, h5py.Dataset):
                yield path[1:], found
            else:
                raise ValueError(f"{path[1:]} is neither a group nor a dataset")


def _is_view(dataset: h5py.Dataset, found: Mapping[str, h5py.Dataset]) -> bool:
    """Tell whether a virtual dataset shows a part of one contiguous dataset of this file, as those of small tensors."""
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5d.VIRTUAL or properties.get_virtual_count() != 1:
        return False
    source = found.get(properties.get_virtual_dsetname(0).removeprefix("/"))
    return (
        properties.get_virtual_filename(0) == "."
        and source is not None
        and source.id.get_create_plist().get_layout() == h5d.CONTIGUOUS
        and dataset.nbytes <= source.nbytes
    )


def _size(owner: Any) -> int:
    return int(h5py.h5i.get_file_id(owner.id).get_filesize())


def check_dataset(name: str, dataset: h5py.Dataset) -> int:
    """Return the number of bytes that a dataset unpacks to, 0 where it is not packed. Raises like `check_plain`."""
    size = _size(dataset)
    properties = dataset.id.get_create_plist()
    layout, nbytes, stored = properties.get_layout(), int(dataset.nbytes), int(dataset.id.get_storage_size())
    if properties.get_external_count() or layout == h5d.VIRTUAL:
        raise ValueError(f"{name} lies in another file")
    if layout != h5d.CHUNKED:
        if stored > size or nbytes > max(stored, 0):
            raise ValueError(f"{name} has {nbytes} bytes, which are not in the file")
        return 0
    if {properties.get_filter(k)[0] for k in range(properties.get_nfilters())} - _PACKING:
        raise ValueError(f"{name} is packed as aclcmp does not do it")
    chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
    most = max(_TABLE_ALWAYS if dataset.dtype.names else _ALWAYS, _RATIO * stored)
    if stored > size or nbytes > most or chunk > max(_CHUNK, dataset.dtype.itemsize):
        raise ValueError(f"{name} has {stored} bytes, but would unpack to {nbytes}")
    return nbytes


def read_whole(path: str, step: Callable[[], object]) -> None:
    """Read an HDF5 file whole, and call `step` after every few MiB.

    Raises the errors of h5py, and ValueError like `check_plain`.
    """
    with h5py.File(path, "r", locking=False) as file:
        check_plain(file)
        _read_attributes(file)
        groups: set[h5py.Group] = set()
        for _, dataset in datasets(file):
            groups.add(dataset.parent)
            _read_attributes(dataset)
            step()
            rows = max(_WINDOW // max(dataset.nbytes // max(len(dataset), 1), 1), 1) if dataset.shape else 1
            for begin in range(0, len(dataset) if dataset.shape else 0, rows):
                dataset[begin : begin + rows]
                step()
            if not dataset.shape:
                dataset[()]
        for group in groups:
            _read_attributes(group)


def _read_attributes(owner: Any) -> None:
    for name in owner.attrs:
        owner.attrs[name]

"""An HDF5 file of ours as a whole: built in memory and sealed, so that one who opens it knows whether it is as written.

Behind HDF5's own bytes, where HDF5 does not look, stands a checksum of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py
import xxhash

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.checksum import hash_start
from aclcmp.labeling.shard.trial import check_opens

_SEAL = "\naclcmp xxh3 {:032x}\n"
_ANY_SEAL = rb"\naclcmp xxh3 [0-9a-f]{32}\n"
SEAL_LENGTH = len(_SEAL.format(0))


def write_sealed_file(path: Path, build: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file in which `build` puts what it holds. Raises OSError when the file cannot be written.

    It is built in memory: of a disk that fills up HDF5 tells in errors of many kinds, some at close.
    """
    image = BytesIO()
    # v110: in the oldest format the numbers of 8,192 ranks do not fit into an attribute.
    with h5py.File(image, "w", libver="v110") as file:
        build(file)
    image.seek(0, os.SEEK_END)
    image.write(_SEAL.format(xxhash.xxh3_128_intdigest(image.getbuffer())).encode())
    path.write_bytes(image.getbuffer())


@contextmanager
def open_sealed_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file that `write_sealed_file` wrote, or an earlier version of it; one without a seal is tried first.

    HDF5 takes the seal away when it changes a file. Raises OSError when it cannot be opened, ShardFormatError when its
    bytes are not those that were sealed or when trying it ended badly.
    """
    if not _is_sealed(path):
        check_opens(path)
    with h5py.File(path, "r") as file:
        yield file


def _is_sealed(path: Path) -> bool:
    """Return whether a file has a seal. Raises ShardFormatError when it is not the one of its bytes."""
    with path.open("rb") as file:
        try:
            digest = hash_start(file, max(os.fstat(file.fileno()).st_size - SEAL_LENGTH, 0)).intdigest()
        except EOFError:  # somebody cut it off meanwhile
            return False
        seal = file.read()
    if seal == _SEAL.format(digest).encode():
        return True
    if re.fullmatch(_ANY_SEAL, seal):
        raise ShardFormatError(f"{path} is damaged: its bytes are not those that were written")
    return False

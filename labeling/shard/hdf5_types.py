"""HDF5 types of the element types. Plain h5py reads right values for all but float8 (stored as uint8 bits)."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5s, h5t

from aclcmp.labeling.shard.dtypes import DTYPES


def _bfloat16() -> Any:
    # sign at bit 15, 8 exponent bits from bit 7, 7 mantissa bits from bit 0; started from float16 for its size
    kind = h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    return kind


@cache
def hdf5_type(name: str) -> Any:
    """Return the HDF5 type identifier that a dataset of torch dtype `name` has in the file."""
    if name == "bfloat16":
        return _bfloat16()
    return h5t.py_create(DTYPES[name].memory, logical=True)


def text_type(size: int) -> np.dtype[Any]:
    """Return a fixed-length UTF-8 string type of `size` bytes, at least 1, for compound tables and attributes."""
    kind: np.dtype[Any] = h5py.string_dtype("utf-8", max(size, 1))
    return kind


def encode_text(text: str) -> bytes:
    """Return `text` as UTF-8; characters that UTF-8 or HDF5 cannot hold (half surrogates, NUL) become escapes."""
    return text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\x00")


def set_text(owner: Any, name: str, text: str) -> None:
    """Write an attribute of fixed-length UTF-8 on an h5py object, high or low level.

    h5py itself writes texts of variable length. They lie in heaps, where one damaged byte can make HDF5 loop for ever,
    deaf to Ctrl-C, when they are read.
    """
    value = encode_text(text) or b"\0"
    kind, space = _attribute_of(len(value))
    place = owner.id if isinstance(owner, h5py.HLObject) else owner
    if h5a.exists(place, name.encode()):
        h5a.delete(place, name.encode())
    h5a.create(place, name.encode(), kind, space).write(np.array(value), kind)


@lru_cache(maxsize=1024)
def _attribute_of(size: int) -> tuple[Any, Any]:
    """Return type and space of an attribute of one text: a shard has them for each of its labels."""
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_cset(h5t.CSET_UTF8)
    return kind, h5s.create(h5s.SCALAR)


def decode_text(value: str | bytes) -> str:
    """Return a stored text, of fixed or of variable length. Raises UnicodeDecodeError."""
    return value.decode("utf-8") if isinstance(value, bytes) else value

"""The comparison kernels' library in the labeled process: it summarises tensors there if it is built already."""

from __future__ import annotations

import ctypes
import os
import platform
from ctypes import c_double, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.element_codes import CODES, FLOAT8
from aclcmp.labeling.shard.element_values import FLOAT8_VALUES

_INTERFACE = 1
"""What `summary_interface` of a library returns whose `summarise` takes what is given here."""
_INSTALLED = Path(__file__).parents[2] / "orchestrator" / "compare" / "kernels" / "kernels.so"


class Sums(ctypes.Structure):
    """What is known of a tensor's flat elements, in the form of kernels.c; `summarise` adds to it."""

    _fields_ = (
        *((name, c_double) for name in ("sum", "min", "max", "lowest")),
        ("counts", c_int64 * 3),
        *((name, c_int64) for name in ("stretch", "together")),
        *((name, c_void_p) for name in ("row_squares", "sketch", "row_sketches")),
        ("odd_count", c_int64),
        ("odd", c_void_p),
    )
    sum: float
    min: float
    max: float
    counts: ctypes.Array[c_int64]
    odd_count: int


@cache
def summary_library() -> ctypes.CDLL | None:
    """Return the library that was installed with the package, or one that this user's comparisons built.

    None where there is no such library: nothing is compiled in the process of a model.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    built: list[Path] = []
    try:
        folder = (base if base.is_absolute() else Path.home() / ".cache") / "aclcmp" / "kernels"
        ours = (
            path for path in folder.glob(f"*-{platform.machine()}/kernels.so") if path.stat().st_uid == os.geteuid()
        )
        built = sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
    except (OSError, RuntimeError):
        pass
    for path in (_INSTALLED, *built):
        try:
            library = ctypes.CDLL(str(path))
            if library.summary_interface() != _INTERFACE:
                continue
            library.use_target(c_int(2))
            library.summarise.argtypes = [c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p]
            library.summarise.restype = None
        except (OSError, AttributeError):
            continue
        return library
    return None


def add_to_sums(
    library: Any,
    bits: npt.NDArray[np.uint8],
    dtype: str,
    start: int,
    stop: int,
    words: npt.NDArray[np.uint64] | None,
    sums: Sums,
) -> None:
    """Add the values start <= i < stop of a tensor, whose bytes `bits` are; without random words no projection.

    `sums.odd` must have room for stop - start numbers: `odd_count` of them tell what was not finite, each as
    4 i + kind. The call releases the GIL.
    """
    code = CODES[dtype]
    table = FLOAT8_VALUES[code - FLOAT8].ctypes.data if code >= FLOAT8 else None
    address = None if words is None else words.ctypes.data
    sums.odd_count = 0
    itemsize = bits.size // (stop - start)
    library.summarise(bits.ctypes.data, itemsize, code, table, start, stop, address, ctypes.addressof(sums))

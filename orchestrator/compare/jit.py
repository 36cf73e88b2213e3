"""How the kernels are compiled, and how their machine code is kept for the processes to come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Without nnan and ninf, which would let the compiler drop what recognises non-finite values. Without arcp and afn: on
# some targets they turn a division into an estimate that is wrong at 0 and at subnormals.
_FASTMATH = {"reassoc", "nsz", "contract"}

# Python's error model looks for a zero before each division, which keeps loops from being vectorised.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}

_SOURCES = ("arguments.py", "blocks.py", "decode.py", "gather.py", "jit.py", "kernel.py", "walk.py")


def compiled(function: _Function) -> _Function:
    """Compile `function` into the entry points that call it."""
    return cast(_Function, numba.njit(**_OPTIONS)(function))


def entry_point(function: _Function) -> _Function:
    """Compile `function` on its first call; its code is kept beside the source or in the user's cache folder."""
    try:
        dispatcher = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither folder can be written: compile in each process
        return compiled(function)
    # numba takes cached code for current as long as the entry point's own file is unchanged; what it calls counts too.
    stats = [(Path(__file__).parent / name).stat() for name in _SOURCES]
    dispatcher._cache._cache_file._source_stamp = tuple((stat.st_mtime, stat.st_size) for stat in stats)
    return cast(_Function, dispatcher)

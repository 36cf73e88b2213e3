"""Compilation of the kernels, and the cache of their machine code for later processes."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from aclcmp.orchestrator.compare.kernels.kernel_cache import keep_code

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Without nnan and ninf, which would let the compiler drop the tests for non-finite values. Without arcp and afn, which
# on some targets turn a division into an estimate that is wrong at 0 and at subnormals.
_FASTMATH = {"reassoc", "nsz", "contract"}

# Python's error model looks for a zero before each division, which keeps loops from being vectorised.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}


def jit(function: _Function) -> _Function:
    """Compile `function` into the entry points that call it."""
    return cast("_Function", numba.njit(**_OPTIONS)(function))


def entry_point(function: _Function) -> _Function:
    """Compile `function` on its first call, or load the code that another process compiled."""
    dispatcher = numba.njit(**_OPTIONS)(function)
    if not numba.config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1: it stays the Python function
        keep_code(dispatcher)
    return cast("_Function", dispatcher)


def give_back_compiler() -> None:
    """Drop the compiler's own code from this process's memory, where the system can: kernels run without it.

    LLVM's library holds 50 of 220 MiB of a compare actor. Only its executable pages are dropped: those are never
    written, so they come back from the file should another kernel be compiled.
    """
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    for fields in (line.split(maxsplit=5) for line in maps):
        if len(fields) == 6 and "llvmlite" in fields[5] and fields[1] == "r-xp":
            begin, end = (int(address, 16) for address in fields[0].split("-"))
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)

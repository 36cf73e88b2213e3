"""How the kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Without nnan and ninf, which would let the compiler drop what recognises non-finite values. Without arcp and afn: on
# some targets they turn a division into an estimate that is wrong at 0 and at subnormals.
_FASTMATH = {"reassoc", "nsz", "contract"}


def compiled(function: _Function) -> _Function:
    """Compile `function` on its first call; the code is kept beside the source for the processes to come."""
    # Python's error model looks for a zero before each division, which keeps the loop from being vectorised.
    return cast(_Function, numba.njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")(function))

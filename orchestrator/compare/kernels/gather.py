"""Gather a region's elements: as a view of the tensor, or with its runs copied together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.compare.kernels.jit import jit
from aclcmp.orchestrator.compare.kernels.strides import Walk

_Bytes = npt.NDArray[np.uint8]
_Int64 = npt.NDArray[np.int64]


@jit
def run_start(base: int, sizes: _Int64, strides: _Int64, number: int) -> int:
    """Return the flat index at which run `number` of a walk begins."""
    index = base
    for level in range(sizes.size - 1, 0, -1):
        size = sizes[level]
        index += number % size * strides[level]
        number //= size
    if sizes.size > 0:
        index += number * strides[0]
    return index


@jit
def _copy_runs(source: Any, walk: Walk, number: int, within: int, out: Any) -> None:
    """Fill `out` with the elements from element `within` of run `number` on."""
    # Read from the walk once: each access to an array in a tuple counts references, which costs more than a short run.
    run, base, sizes, strides = walk.run, walk.base, walk.sizes, walk.strides
    filled = 0
    while filled < out.size:
        take = min(run - within, out.size - filled)
        # Unsigned numbers spare each access the test for an index that counts from the end.
        to, start = np.uintp(filled), np.uintp(run_start(base, sizes, strides, number) + within)
        for i in range(np.uintp(take)):
            out[to + i] = source[start + i]
        filled += take
        number += 1
        within = 0


@jit
def stretch(data: _Bytes, itemsize: int, walk: Walk, position: int, scratch: _Bytes) -> _Bytes:
    """Return the bytes of as many elements as `scratch` holds, from the region's element number `position` on.

    They are a view of `data` if they lie in one run, else written to `scratch`.
    """
    number = position // walk.run
    within = position - number * walk.run
    if within + scratch.size // itemsize <= walk.run:
        start = (run_start(walk.base, walk.sizes, walk.strides, number) + within) * itemsize
        return data[start : start + scratch.size]
    if itemsize == 1:
        _copy_runs(data, walk, number, within, scratch)
    elif itemsize == 2:
        _copy_runs(data.view(np.uint16), walk, number, within, scratch.view(np.uint16))
    elif itemsize == 4:
        _copy_runs(data.view(np.uint32), walk, number, within, scratch.view(np.uint32))
    else:
        _copy_runs(data.view(np.uint64), walk, number, within, scratch.view(np.uint64))
    return scratch

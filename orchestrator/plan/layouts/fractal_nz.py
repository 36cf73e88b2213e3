"""FRACTAL_NZ, the layout of Ascend's matrix units: a matrix in column blocks, each dense, so that ND regions are found.

A matrix (M, N) is stored as (ceil(N / n0), m, n0): element (i, j) lies at [j // n0, i, j % n0]. m is M rounded up to
the block's height, n0 its width (16 for 2-byte types, 32 bytes in general). Dimensions before the last two are batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.regions import Region, Source

_ROW_STEPS = (1, 16)
"""Rows are padded to a multiple of 16, and not at all by some writers."""


def plain_shape(stored: Source, golden: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape in ND of a FRACTAL_NZ tensor beside a golden one: equal, or a slice of its columns or rows.

    Where rows or columns are padded only the former can be told. None when it is none of these.
    """
    if column_blocks(stored, golden) is not None:
        return golden
    if len(golden) < 2 or len(stored.shape) < 3:
        return None
    found = set()
    for blocks, height in _grids(stored.shape, math.prod(golden[:-2])):
        for matrix in ((golden[-2], blocks * stored.shape[-1]), (height, golden[-1])):
            shape = (*golden[:-2], *matrix)
            smaller = all(0 < n <= m for n, m in zip(shape, golden, strict=True))
            if smaller and -(-matrix[1] // stored.shape[-1]) == blocks and column_blocks(stored, shape) is not None:
                found.add(shape)
    return found.pop() if len(found) == 1 else None


def _grids(stored: tuple[int, ...], batches: int) -> Iterator[tuple[int, int]]:
    """Yield (column blocks, height) as the shape can be read: (batch, N1, M, n0), or (batch, N1, M1, m0, n0)."""
    if math.prod(stored[:-3]) == batches:
        yield stored[-3], stored[-2]
    if len(stored) > 3 and math.prod(stored[:-4]) == batches:
        yield stored[-4], stored[-3] * stored[-2]


def column_blocks(stored: Source, shape: tuple[int, ...]) -> list[tuple[Source, Region, Region]] | None:
    """Cut a FRACTAL_NZ tensor that is `shape` in ND into its column blocks; None when it cannot be `shape`.

    Each block is a source of its own with the region of it that is no padding, and the region of `shape` that it holds.
    """
    if not shape or len(stored.shape) < 3:
        return None
    batch, (rows, columns) = shape[:-2], ((1,) * 2 + shape)[-2:]
    width = stored.shape[-1]
    blocks = -(-columns // width) if width else 0
    batches = math.prod(batch)
    if blocks * batches == 0 or math.prod(stored.shape) % (blocks * batches * width):
        return None
    height = math.prod(stored.shape) // (blocks * batches * width)
    if height not in {-(-rows // step) * step for step in _ROW_STEPS}:
        return None
    return list(_blocks(stored, shape, rows, columns, height))


def _blocks(
    stored: Source, shape: tuple[int, ...], rows: int, columns: int, height: int
) -> Iterator[tuple[Source, Region, Region]]:
    width = stored.shape[-1]
    block_bytes = height * width * DTYPES[stored.dtype].itemsize
    ones = (1,) * len(shape[:-2])
    flat = len(shape) == 1
    places = itertools.product(*(range(size) for size in shape[:-2]), range(0, columns, width))
    for number, (*batch, left) in enumerate(places):
        taken = min(width, columns - left)
        source = replace(stored, offset=stored.offset + number * block_bytes, shape=(*ones, height, width))
        inner = Region((0,) * len(source.shape), (*ones, rows, taken))
        whole = Region((*batch, 0, left), (*ones, rows, taken))
        if flat:  # a vector is a matrix of one row
            source = replace(source, shape=(height * width,))
            inner, whole = Region((0,), (taken,)), Region((left,), (taken,))
        yield source, inner, whole

"""Pairs whose sides lie one after the other in a file: golden, and twice golden."""

from pathlib import Path

import numpy as np

from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source


def pair_of(path: Path, rank: int, shape: tuple[int, ...] = (4, 4)) -> Pair:
    """Return the pair of one label of a rank in a file."""
    golden = Source(str(path), 0, "float32", shape)
    actual = Source(str(path), int(np.prod(shape)) * 4, "float32", shape)
    whole = Region.whole(shape)
    return Pair(LabelKey(0, "x", 0), rank, golden, whole, actual, whole, shape, whole, "same shape")


def write(path: Path, shape: tuple[int, ...] = (4, 4)) -> None:
    """Write the file."""
    golden = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path.write_bytes(golden.tobytes() + (golden * np.float32(2)).tobytes())

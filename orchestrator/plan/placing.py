"""Where a rank's local tensor lies in the whole: as its layout says, or as the shapes of all ranks prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aclcmp.labeling.layout import Layout
from aclcmp.orchestrator.plan.regions import Region

Shape = tuple[int, ...]


class PlacingError(Exception):
    """The shapes and layouts of a label do not fit; the message says how."""


@dataclass(frozen=True, slots=True)
class Local:
    """One side of a label on one rank."""

    shape: Shape
    layout: Layout | None


@dataclass(frozen=True, slots=True)
class Placing:
    """Golden and actual regions that hold the same part of the whole, each within its own local tensor."""

    whole_shape: Shape
    region: Region
    golden_region: Region
    actual_region: Region
    layout: str


def place(rank: int, goldens: Mapping[int, Local], actuals: Mapping[int, Local], world_size: int) -> Placing:
    """Find the regions to compare on `rank`, given both sides of all ranks that have the label.

    Equal shapes are compared as they are. Where they differ in one dimension, the smaller side is a slice of the other:
    the slices of all ranks, in rank order, must make up the whole. Raises PlacingError.
    """
    golden, actual = goldens[rank], actuals[rank]
    for side, local in (("golden", golden), ("actual", actual)):
        if local.layout is not None and any(p.startswith("Partial") for p in local.layout.placements):
            raise PlacingError(f"the {side} side is {local.layout}: summands are not compared yet, only their sum")
    if golden.shape == actual.shape:
        return _same_shape(golden, actual)
    differ = PlacingError(f"golden has shape {_words(golden)}, actual {_words(actual)}")
    if len(golden.shape) != len(actual.shape):
        raise differ
    dims = [dim for dim, (g, a) in enumerate(zip(golden.shape, actual.shape, strict=True)) if g != a]
    actual_is_slice = actual.shape[dims[0]] < golden.shape[dims[0]]
    piece, whole = (actual, golden) if actual_is_slice else (golden, actual)
    if piece.layout is not None and piece.layout.start is not None:
        if piece.layout.whole_shape != whole.shape:
            raise differ
        start, words = piece.layout.start, str(piece.layout)
    else:
        if len(dims) > 1 or (piece.layout is not None and _shard_dim(piece) != dims[0]):
            raise differ
        pieces = actuals if actual_is_slice else goldens
        first = _start_of_slice(rank, dims[0], whole.shape, pieces, world_size)
        start = tuple(first if dim == dims[0] else 0 for dim in range(len(whole.shape)))
        words = str(piece.layout) if piece.layout else f"Shard(dim={dims[0]}), inferred"
    region, local_region = Region(start, piece.shape), Region.whole(piece.shape)
    if any(s + n > w for s, n, w in zip(start, piece.shape, whole.shape, strict=True)):
        raise differ
    if actual_is_slice:
        return Placing(whole.shape, region, region, local_region, words)
    return Placing(whole.shape, region, local_region, region, f"golden {words}")


def _words(local: Local) -> str:
    return f"{list(local.shape)}" + (f" with layout {local.layout}" if local.layout else "")


def _shard_dim(local: Local) -> int | None:
    dim = local.layout.shard_dim if local.layout else None
    return dim + len(local.shape) if dim is not None and dim < 0 else dim


def _same_shape(golden: Local, actual: Local) -> Placing:
    """The same region on both sides; its place in the whole is known when a DTensor told it."""
    local = Region.whole(actual.shape)
    layout = actual.layout or golden.layout
    for told in (actual.layout, golden.layout):
        if told is not None and told.whole_shape is not None and told.start is not None:
            return Placing(told.whole_shape, Region(told.start, actual.shape), local, local, str(told))
    return Placing(actual.shape, local, local, local, str(layout) if layout else "same shape")


def _start_of_slice(rank: int, dim: int, whole: Shape, pieces: Mapping[int, Local], world_size: int) -> int:
    sizes = {r: local.shape[dim] for r, local in pieces.items() if len(local.shape) == len(whole)}
    held = sum(sizes.values())
    if held == whole[dim]:
        return sum(size for r, size in sizes.items() if r < rank)
    if len(set(sizes.values())) == 1 and sizes[rank] * world_size == whole[dim]:
        return rank * sizes[rank]  # some ranks lack the label, but an even split over all of them fits
    raise PlacingError(
        f"ambiguous: dimension {dim} has {whole[dim]} elements in the whole and {sizes[rank]} on this rank, "
        f"but the {len(sizes)} ranks with this label hold {held} together; which slice is whose cannot be told"
    )

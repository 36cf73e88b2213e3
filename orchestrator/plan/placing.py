"""Where a rank's local tensor lies in the whole: as its layout says, or as the shapes of all ranks prove."""

from __future__ import annotations

import itertools
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


class Placer:
    """Places one label, given both sides of all ranks that have it.

    Equal shapes are compared as they are. Where they differ in one dimension, the smaller side is a slice of the other:
    the slices of all ranks, in rank order, must make up the whole.
    """

    def __init__(self, goldens: Mapping[int, Local], actuals: Mapping[int, Local], world_size: int) -> None:
        self._goldens = goldens
        self._actuals = actuals
        self._world_size = world_size
        self._starts: dict[tuple[bool, int, int], Mapping[int, int]] = {}
        self.uncovered: dict[int, bool] = {}
        """Ranks whose slice of the whole nobody labelled, and whether it is a slice of the actual side."""

    def place(self, rank: int) -> Placing:
        """Find the regions to compare on `rank`. Raises PlacingError."""
        golden, actual = self._goldens[rank], self._actuals[rank]
        for side, local in (("golden", golden), ("actual", actual)):
            if local.layout is not None and any(p.startswith("Partial") for p in local.layout.placements):
                raise PlacingError(f"the {side} side is {local.layout}: summands are not compared yet, only their sum")
            _check_place(local)
        if golden.shape == actual.shape:
            return _same_shape(golden, actual)
        differ = _differ(golden, actual)
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
            first = self._slice_starts(dims[0], whole.shape[dims[0]], actual_is_slice)[rank]
            start = tuple(first if dim == dims[0] else 0 for dim in range(len(whole.shape)))
            words = str(piece.layout) if piece.layout else f"Shard(dim={dims[0]}), inferred"
        region, local_region = Region(start, piece.shape), Region.whole(piece.shape)
        if any(s + n > w for s, n, w in zip(start, piece.shape, whole.shape, strict=True)):
            raise differ
        if actual_is_slice:
            return Placing(whole.shape, region, region, local_region, words)
        return Placing(whole.shape, region, local_region, region, f"golden {words}")

    def _slice_starts(self, dim: int, whole: int, actual_is_slice: bool) -> Mapping[int, int]:
        """Where every rank's slice begins along `dim`, worked out once for a label. Raises PlacingError."""
        known = self._starts.get((actual_is_slice, dim, whole))
        if known is not None:
            return known
        pieces = self._actuals if actual_is_slice else self._goldens
        sizes = {rank: pieces[rank].shape[dim] for rank in sorted(pieces) if len(pieces[rank].shape) > dim}
        held = sum(sizes.values())
        size = max(sizes.values())
        if held == whole:
            ends = itertools.accumulate(sizes.values())
            starts = {rank: end - sizes[rank] for rank, end in zip(sizes, ends, strict=True)}
        elif min(sizes.values()) == size and size * self._world_size == whole:
            starts = {rank: rank * size for rank in sizes}  # some ranks lack the label, but only an even split fits
            self.uncovered |= dict.fromkeys(set(range(self._world_size)) - set(sizes), actual_is_slice)
        else:
            raise PlacingError(
                f"ambiguous: dimension {dim} has {whole} elements in the whole, but the {len(sizes)} ranks with this "
                f"label hold {held} together; which slice is whose cannot be told"
            )
        self._starts[actual_is_slice, dim, whole] = starts
        return starts


def _check_place(local: Local) -> None:
    """Raise PlacingError when a DTensor's recorded place is impossible: it comes from a file."""
    layout = local.layout
    if layout is None or layout.whole_shape is None or layout.start is None:
        return
    boxes = (layout.start, local.shape, layout.whole_shape)
    if len({len(box) for box in boxes}) != 1 or any(s < 0 or s + n > w for s, n, w in zip(*boxes, strict=True)):
        raise PlacingError(f"{_words(local)} cannot lie at {list(layout.start)} in {list(layout.whole_shape)}")


def _differ(golden: Local, actual: Local) -> PlacingError:
    return PlacingError(f"golden has shape {_words(golden)}, actual {_words(actual)}")


def _words(local: Local) -> str:
    return f"{list(local.shape)}" + (f" with layout {local.layout}" if local.layout else "")


def _shard_dim(local: Local) -> int | None:
    dim = local.layout.shard_dim if local.layout else None
    return dim + len(local.shape) if dim is not None and dim < 0 else dim


def _same_shape(golden: Local, actual: Local) -> Placing:
    """The same region on both sides; its place in the whole is known when a DTensor told it."""
    local = Region.whole(actual.shape)
    layouts = [layout for layout in (actual.layout, golden.layout) if layout is not None]
    told = [layout for layout in layouts if layout.whole_shape is not None and layout.start is not None]
    places = {(layout.whole_shape, layout.start) for layout in told}
    if len(places) > 1 or (not told and len({layout.is_replicate for layout in layouts}) > 1):
        raise _differ(golden, actual)
    if told and told[0].whole_shape is not None and told[0].start is not None:
        return Placing(told[0].whole_shape, Region(told[0].start, actual.shape), local, local, str(told[0]))
    return Placing(actual.shape, local, local, local, str(layouts[0]) if layouts else "same shape")

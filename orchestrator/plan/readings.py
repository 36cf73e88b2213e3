"""How the tensors of one side can lie in the whole: as told by layouts, else every way that their shapes allow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from aclcmp.labeling.layout import PARTIAL, Layout
from aclcmp.orchestrator.plan.regions import Region

Shape = tuple[int, ...]


class PlacingError(Exception):
    """The shapes and layouts of a label do not fit; the message says how."""


@dataclass(frozen=True, slots=True)
class Local:
    """One side of a label on one rank. Equal `content`s say that two are the same bit for bit; None is not known."""

    shape: Shape
    layout: Layout | None
    host: str = ""
    content: object = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Where every rank's tensor lies in a whole of shape `whole`."""

    whole: Shape
    regions: Mapping[int, Region]
    words: str
    told: bool
    """Whether layouts say so, and not the shapes alone."""
    missing: tuple[int, ...] = ()
    """Ranks of the job that hold a slice of the whole but have no label."""
    summands: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Ranks whose tensors are added to those of a rank in `regions`; they are in no region of their own."""

    @property
    def replicated(self) -> bool:
        """Whether every rank holds the whole."""
        return not self.summands and all(region.shape == self.whole for region in self.regions.values())

    @property
    def said(self) -> str:
        """The layout as the report tells it."""
        return self.words if self.told else f"{self.words}, inferred"


def readings(pieces: Mapping[int, Local], world_size: int) -> list[Reading]:
    """Return every way in which one side's tensors can make up a whole. Raises PlacingError where layouts contradict.

    Told layouts leave one reading. Otherwise the tensors may be replicas, if they have one shape, or slices in rank
    order along any dimension, if they agree in all others. Where some ranks of the job lack the label, equal slices may
    be those of an even split over all ranks.
    """
    for piece in pieces.values():
        _check_place(piece)
    layouts = {str(piece.layout) for piece in pieces.values() if piece.layout is not None}
    if any(piece.layout is not None and piece.layout.start is not None for piece in pieces.values()):
        return [_from_starts(pieces)]
    if len(layouts) > 1:
        raise PlacingError(f"ranks tell different layouts: {', '.join(sorted(layouts))}")
    layout = next((piece.layout for piece in pieces.values() if piece.layout is not None), None)
    shapes = {piece.shape for piece in pieces.values()}
    dims = len(next(iter(shapes)))
    if layout is not None and layout.placements == (PARTIAL,):
        if len(shapes) > 1:
            raise PlacingError(f"summands have different shapes: {_shapes(pieces)}")
        first, *others = sorted(pieces)
        whole = pieces[first].shape
        return [Reading(whole, {first: Region.whole(whole)}, _sum_of(pieces), True, (), {first: tuple(others)})]
    if layout is not None and PARTIAL in layout.placements:
        raise PlacingError(f"{layout}: summands beside replicas of them cannot be told apart yet")
    if layout is not None and not layout.is_replicate:
        dim = layout.shard_dim
        if dim is None or not -dims <= dim < dims:
            raise PlacingError(f"layout {layout} does not fit {_shapes(pieces)}")
        found = _sharded(pieces, dim % dims, world_size, str(layout), told=True)
        if not found:
            raise PlacingError(f"layout {layout} does not fit {_shapes(pieces)}")
        return found
    found = []
    if len(shapes) == 1:
        (shape,) = shapes
        words = str(layout) if layout else "same shape"
        found.append(Reading(shape, dict.fromkeys(pieces, Region.whole(shape)), words, told=True))
    if layout is None:
        for dim in range(dims):
            found += _sharded(pieces, dim, world_size, f"Shard(dim={dim})", told=False)
    return found


def _sharded(pieces: Mapping[int, Local], dim: int, world_size: int, words: str, *, told: bool) -> list[Reading]:
    """The readings as slices along `dim`: of the ranks that have the label, and of all ranks if some lack it."""
    others = {(len(p.shape), p.shape[:dim], p.shape[dim + 1 :]) for p in pieces.values() if len(p.shape) > dim}
    if len(others) != 1 or any(len(piece.shape) <= dim for piece in pieces.values()):
        return []
    sizes = {rank: pieces[rank].shape[dim] for rank in sorted(pieces)}
    if sum(sizes.values()) == 0:
        return []  # nothing along `dim` on any rank: that they are replicas says the same
    ends = itertools.accumulate(sizes.values())
    starts = {rank: end - sizes[rank] for rank, end in zip(sizes, ends, strict=True)}
    found = []
    if len(pieces) > 1 or told:
        found.append(_along(pieces, dim, starts, sum(sizes.values()), words, told, ()))
    absent = tuple(rank for rank in range(world_size) if rank not in pieces)
    if absent and len(set(sizes.values())) == 1:
        size = next(iter(sizes.values()))
        even = {rank: rank * size for rank in pieces}
        found.append(_along(pieces, dim, even, size * world_size, words, told, absent))
    return found


def _along(
    pieces: Mapping[int, Local],
    dim: int,
    starts: Mapping[int, int],
    size: int,
    words: str,
    told: bool,
    missing: tuple[int, ...],
) -> Reading:
    shape = next(iter(pieces.values())).shape
    whole = (*shape[:dim], size, *shape[dim + 1 :])
    regions = {
        rank: Region(tuple(starts[rank] if d == dim else 0 for d in range(len(shape))), piece.shape)
        for rank, piece in pieces.items()
    }
    return Reading(whole, regions, words, told, missing)


def _from_starts(pieces: Mapping[int, Local]) -> Reading:
    """DTensors say where they lie."""
    layouts = [piece.layout for piece in pieces.values()]
    told = [layout for layout in layouts if layout is not None and layout.start is not None]
    wholes = {layout.whole_shape for layout in told}
    if len(told) < len(layouts) or len(wholes) != 1 or None in wholes:
        raise PlacingError(f"only some ranks tell where their part lies, or in different wholes: {_shapes(pieces)}")
    regions = {
        rank: Region(p.layout.start, p.shape) for rank, p in pieces.items() if p.layout and p.layout.start is not None
    }
    whole, placements = told[0].whole_shape or (), told[0].placements
    if PARTIAL not in placements:
        return Reading(whole, regions, str(told[0]), told=True)
    if "Replicate()" in placements:
        raise PlacingError(f"{told[0]}: summands beside replicas of them cannot be told apart yet")
    holders: dict[Region, list[int]] = {}
    for rank in sorted(regions):
        holders.setdefault(regions[rank], []).append(rank)
    summands = {ranks[0]: tuple(ranks[1:]) for ranks in holders.values()}
    return Reading(whole, {r: regions[r] for r in summands}, str(told[0]), True, (), summands)


def _check_place(piece: Local) -> None:
    """Raise PlacingError when a DTensor's recorded place is impossible: it comes from a file."""
    layout = piece.layout
    if layout is None:
        return
    for placement in layout.placements:
        if placement.startswith("Partial") and placement != PARTIAL:
            raise PlacingError(f"{layout}: only sums are made up of their parts")
    if layout.whole_shape is None or layout.start is None:
        return
    boxes = (layout.start, piece.shape, layout.whole_shape)
    if len({len(box) for box in boxes}) != 1 or any(s < 0 or s + n > w for s, n, w in zip(*boxes, strict=True)):
        raise PlacingError(f"{list(piece.shape)} cannot lie at {list(layout.start)} in {list(layout.whole_shape)}")


def _shapes(pieces: Mapping[int, Local]) -> str:
    shapes: dict[Shape, list[int]] = {}
    for rank, piece in sorted(pieces.items()):
        shapes.setdefault(piece.shape, []).append(rank)
    return "; ".join(f"{list(shape)} on rank{'s' * (len(r) > 1)} {_few(r)}" for shape, r in shapes.items())


def _sum_of(pieces: Mapping[int, Local]) -> str:
    return f"{PARTIAL} over {len(pieces)} rank{'s' * (len(pieces) > 1)}"


def _few(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:4])) + (f" ... ({len(ranks)} ranks)" if len(ranks) > 4 else "")

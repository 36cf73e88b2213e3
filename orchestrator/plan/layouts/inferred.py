"""Inferred layouts: every one that the shapes of all ranks allow where none is declared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from aclcmp.labeling.layout import Layout, Placement, Replicate, Shard
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.plan.layouts.declared import complete_layouts, interpret_layouts, stack_groups
from aclcmp.orchestrator.plan.layouts.interpretations import (
    SAME_SHAPE,
    AlignmentError,
    GlobalTensor,
    LayoutInterpretation,
    LocalTensor,
    Shape,
    TensorBox,
)

PLAIN, GROUPED, LACKING = 1, 2, 3
"""In this order: replicas, or a slice for each rank; groups of ranks, two dimensions, padding; ranks are missing."""
_QUERIES_PER_KEY = (2, 3, 4, 5, 6, 7, 8, 16)
"""Query heads for each key head that fused projections may have."""

_Placements = Callable[[int], tuple[Placement, ...]]
"""Returns the placements of a rank."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A possible layout. It is interpreted only if the shapes of its wholes fit the other side's."""

    shapes: tuple[Shape, ...]
    tier: int
    read: Callable[[], LayoutInterpretation]
    replicas: bool = False
    padded: bool = False
    """True if it takes a part of the last slice for padding, which only the other side's size suggests."""


Pieces = Mapping[int, LocalTensor]


def guess_plain_layouts(pieces: Pieces, world_size: int, alike: bool, *, golden: bool = False) -> list[Guess]:
    """Return the guesses that come first: as declared, else as replicas or slices in the order of ranks.

    `alike`: all tensors are surely the same, and slices only if nothing else fits; golden ones that are the same on
    several ranks are no slices. Where some ranks of the job lack the label, equal slices may be those of an even split
    over all. Raises AlignmentError where layouts contradict each
    other or the shapes.
    """
    layouts = complete_layouts(pieces)
    absent = [rank for rank in range(world_size) if rank not in pieces]
    if layouts is not None:
        return _guess_declared_layouts(pieces, layouts, range(world_size) if absent else range(0))
    found = []
    if len({piece.shape for piece in pieces.values()}) == 1:
        found.append(_replicas(pieces, alike))
    if golden and alike and len(pieces) > 1:
        return found
    for dim in _cut_dims(pieces):
        sizes = [piece.shape[dim] for piece in pieces.values()]
        if len(pieces) > 1:
            found.append(_guess(pieces, GROUPED if alike else PLAIN, {dim: sum(sizes)}, _on_all(Shard(dim))))
        if absent and len(set(sizes)) == 1:
            everyone = Shard(dim, ranks=range(world_size))
            found.append(_guess(pieces, LACKING, {dim: sizes[0] * world_size}, _on_all(everyone)))
    return found


def guess_further_layouts(pieces: Pieces, wholes: set[Shape], alike: bool, *, golden: bool) -> Iterator[Guess]:
    """Yield the guesses that are tried where no plain one fits; `wholes` are the shapes that the other side may have.

    They are for ranks of equal shapes: slices that several ranks hold each, wholes of several groups of ranks, slices
    along two dimensions, and actual slices of which the last is padded. A golden size is never another than it is.
    """
    if golden and alike:
        return
    shapes = {piece.shape for piece in pieces.values()}
    if len(shapes) != 1 or len(pieces) < 2:
        return
    (shape,) = shapes
    count, order = len(pieces), _RankOrder(pieces)
    blocks = [size for size in range(2, count) if count % size == 0]
    for dim in _cut_dims(pieces):
        for size in blocks:
            groups, copies = {dim: shape[dim] * size}, {dim: shape[dim] * (count // size)}
            yield _guess(pieces, GROUPED, groups, order.groups(dim, size), count // size)
            yield _guess(pieces, GROUPED, copies, order.copies(dim, size))
        for whole in wholes if not golden else ():
            if _same_but(whole, shape, dim) and 0 < shape[dim] * count - whole[dim] < shape[dim]:
                padded = _guess(pieces, GROUPED, {dim: whole[dim]}, _on_all(Shard(dim, size=whole[dim])))
                yield replace(padded, padded=True)
    for (one, other), size in itertools.product(itertools.permutations(range(len(shape)), 2), blocks):
        if shape[one] and shape[other]:
            cut = {one: shape[one] * (count // size), other: shape[other] * size}
            yield _guess(pieces, GROUPED, cut, order.cross(one, other, size))


def _on_all(placement: Placement) -> _Placements:
    return lambda _: (placement,)


class _RankOrder:
    """Ranks in their order, cut into blocks of neighbours or into every n-th."""

    def __init__(self, ranks: Iterable[int]) -> None:
        self._ranks = sorted(ranks)
        self._place = {rank: number for number, rank in enumerate(self._ranks)}

    def _near(self, rank: int, size: int) -> tuple[int, ...]:
        first = self._place[rank] // size * size
        return tuple(self._ranks[first : first + size])

    def _far(self, rank: int, size: int) -> tuple[int, ...]:
        return tuple(self._ranks[self._place[rank] % size :: size])

    def groups(self, dim: int, size: int) -> _Placements:
        """Return layouts in which each block of `size` ranks makes up a whole."""
        return lambda rank: (Shard(dim, ranks=self._near(rank, size)),)

    def copies(self, dim: int, size: int) -> _Placements:
        """Return layouts in which each slice is held by a block of `size` ranks."""
        return lambda rank: (Shard(dim, ranks=self._far(rank, size)), Replicate(self._near(rank, size)))

    def cross(self, one: int, other: int, size: int) -> _Placements:
        """Return layouts in which blocks of `size` ranks are slices along `one`, and their ranks along `other`."""
        return lambda rank: (Shard(one, ranks=self._far(rank, size)), Shard(other, ranks=self._near(rank, size)))


def guess_stacks(guesses: Sequence[Guess]) -> Iterator[Guess]:
    """Yield the guesses in which groups of ranks, as declared, hold slices of one whole."""
    for guess in guesses:
        reading = guess.read()
        for dim in range(len(reading.wholes[0].shape)) if len(reading.wholes) > 1 else ():
            together = stack_groups(reading, dim)
            if together is not None:
                yield Guess((together.wholes[0].shape,), GROUPED, partial(_same, together))


def _same(reading: LayoutInterpretation) -> LayoutInterpretation:
    return reading


def fused_interpretations(reading: LayoutInterpretation, pieces: Pieces) -> dict[tuple[int, ...], LayoutInterpretation]:
    """Return how slices that were inferred to be plain may be several, side by side, as fused projections have them.

    By the shares of the parts: gate and up; query, key and value of one size, or with several query heads for each of
    the others.
    """
    dim = reading.sliced
    if dim is None or len(pieces) < 2 or len({piece.shape for piece in pieces.values()}) > 1:
        return {}
    local = next(iter(pieces.values())).shape[dim]
    found = {}
    for shares in ((1, 1), (1, 1, 1), *((queries, 1, 1) for queries in _QUERIES_PER_KEY)):
        unit, rest = divmod(local, sum(shares))
        if not rest and unit:
            parts = tuple(unit * share for share in shares)
            found[shares] = _guess(pieces, PLAIN, {}, _on_all(Shard(dim, parts=parts))).read()
    return found


def zigzag_interpretation(reading: LayoutInterpretation, pieces: Pieces) -> LayoutInterpretation | None:
    """Return the zigzag order of slices that were inferred to lie in plain order; None where that cannot be."""
    if reading.sliced is None or len(pieces) < 2:
        return None
    try:
        return _guess(pieces, PLAIN, {}, _on_all(Shard(reading.sliced, zigzag=True))).read()
    except AlignmentError:
        return None


def _guess_declared_layouts(pieces: Pieces, layouts: dict[int, Layout], everyone: range) -> list[Guess]:
    reading = interpret_layouts(pieces, layouts)
    shapes = tuple(whole.shape for whole in reading.wholes)
    found = [Guess(shapes, PLAIN, lambda: reading, reading.replicated)]
    first = layouts[min(layouts)]
    alone = len(first.placements) == 1 and isinstance(first.placements[0], Shard) and first.placements[0].ranks is None
    if everyone and alone and first.spans is None:
        try:
            wider = interpret_layouts(pieces, layouts, everyone)
        except AlignmentError:  # slices of different sizes: those that are there make up the whole, or nothing does
            return found
        found.append(Guess(tuple(whole.shape for whole in wider.wholes), LACKING, lambda: wider))
    return found


def _replicas(pieces: Pieces, alike: bool) -> Guess:
    """Guess that all ranks hold the same, or each a tensor of its own: their shapes do not tell which."""
    shape = next(iter(pieces.values())).shape
    whole = Region.whole(shape)
    boxes = (TensorBox(whole, whole),)

    def read() -> LayoutInterpretation:
        together = [dict.fromkeys(pieces, boxes)] if alike or len(pieces) == 1 else [{rank: boxes} for rank in pieces]
        return LayoutInterpretation(SAME_SHAPE, True, tuple(GlobalTensor(shape, each) for each in together))

    return Guess((shape,), PLAIN, read, replicas=True)


def _guess(
    pieces: Pieces,
    tier: int,
    whole: Mapping[int, int],
    placements: _Placements,
    groups: int = 1,
) -> Guess:
    """Guess that each rank's layout is `placements(rank)`; `whole` has the sizes that then differ from a rank's."""
    shape = next(iter(pieces.values())).shape
    shapes = (tuple(whole.get(dim, size) for dim, size in enumerate(shape)),)

    def read() -> LayoutInterpretation:
        layouts = {rank: Layout(placements(rank)) for rank in pieces}
        first = layouts[min(layouts)]
        over = f" in {groups} groups of ranks" if groups > 1 else ""
        reading = interpret_layouts(pieces, layouts, words=first.brief + over, declared=False)
        sliced = next((dim for dim in whole if first.placements == (Shard(dim),)), None)
        return replace(reading, sliced=sliced, layouts=layouts)

    return Guess(shapes, tier, read)


def _cut_dims(pieces: Pieces) -> list[int]:
    """Return the dimensions along which tensors may be slices: they agree in all others, and are not empty there."""
    shapes = [piece.shape for piece in pieces.values()]
    dims = {len(shape) for shape in shapes}
    if len(dims) != 1:
        return []
    return [
        dim
        for dim in range(dims.pop())
        if all(_same_but(shape, shapes[0], dim) for shape in shapes) and any(shape[dim] for shape in shapes)
    ]


def _same_but(one: Shape, other: Shape, dim: int) -> bool:
    return len(one) == len(other) and one[:dim] == other[:dim] and one[dim + 1 :] == other[dim + 1 :]

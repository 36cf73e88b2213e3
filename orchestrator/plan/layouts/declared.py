"""The interpretation of declared layouts: groups of ranks, places in them, and stretches along each dimension."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from aclcmp.labeling.layout import Layout, Partial, Placement, Replicate, Shard, Spans, Unknown
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.text import ranks_text
from aclcmp.orchestrator.plan.layouts.interpretations import (
    AlignmentError,
    GlobalTensor,
    LayoutInterpretation,
    LocalTensor,
    Shape,
    TensorBox,
    shapes_text,
)

_Layouts = Mapping[int, Layout]


def interpret_layouts(
    pieces: Mapping[int, LocalTensor],
    layouts: _Layouts,
    everyone: Sequence[int] = (),
    *,
    words: str = "",
    declared: bool = True,
) -> LayoutInterpretation:
    """Return where the tensors lie if `layouts` are theirs. Raises AlignmentError where that cannot be.

    `everyone` are the ranks of a group that is not named, those that have the label if it is empty.
    """
    _check_alike(pieces, layouts)
    groups = _Groups(layouts, pieces, tuple(everyone or sorted(pieces)))
    wholes = tuple(
        _whole({rank: pieces[rank] for rank in ranks}, {rank: layouts[rank] for rank in ranks}, groups)
        for ranks in groups.connected_sets()
    )
    return LayoutInterpretation(words or _words(layouts, groups, len(wholes)), declared, wholes)


def complete_layouts(pieces: Mapping[int, LocalTensor]) -> dict[int, Layout] | None:
    """Return every rank's layout, None where no rank declares one.

    Ranks that declare none have that of the others if it names no ranks. Raises AlignmentError where it does.
    """
    layouts = {rank: piece.layout for rank, piece in pieces.items() if piece.layout is not None}
    if not layouts:
        return None
    silent = [rank for rank in sorted(pieces) if rank not in layouts]
    named = [rank for rank, each in layouts.items() if each.spans is not None or any(p.ranks for p in each.placements)]
    if silent and named:
        raise AlignmentError(f"only some ranks tell where their part lies: {ranks_text(silent)} tell no layout")
    first = layouts[min(layouts)]
    return layouts | dict.fromkeys(silent, first)


def _words(layouts: _Layouts, groups: _Groups, wholes: int) -> str:
    first = layouts[min(layouts)]
    if wholes > 1:
        return f"{first.brief} in {wholes} groups of ranks"
    if any(isinstance(placement, Partial) for placement in first.placements):
        return f"{first.brief} over {len(layouts)} rank{'s' * (len(layouts) > 1)}"
    return first.brief


def _check_alike(pieces: Mapping[int, LocalTensor], layouts: _Layouts) -> None:
    """Raise AlignmentError unless all ranks tell the same kind of layout, for dimensions that their tensors have."""
    kinds: dict[object, int] = {}
    for rank in sorted(layouts):
        layout, dims = layouts[rank], len(pieces[rank].shape)
        for placement in layout.placements:
            if isinstance(placement, Unknown) and (layout.spans is None or placement.words.startswith("Partial")):
                what = (
                    "only sums are made up of their parts" if "Partial" in placement.words else "it is not understood"
                )
                raise AlignmentError(f"{layout.brief}: {what}")
            if isinstance(placement, Shard) and not -dims <= placement.dim < dims:
                raise AlignmentError(f"layout {layout.brief} does not fit {shapes_text(pieces)}: no such dimension")
        kinds.setdefault((dims, tuple(_kind(each, dims) for each in layout.placements), layout.spans is None), rank)
    if len(kinds) > 1:
        declared = ", ".join(
            f"{layouts[rank].brief} for {list(pieces[rank].shape)} on rank {rank}" for rank in kinds.values()
        )
        raise AlignmentError(f"ranks tell different layouts: {declared}")


def _kind(placement: Placement, dims: int) -> object:
    if isinstance(placement, Shard):
        return Shard, placement.dim % dims, placement.parts is None, placement.zigzag, placement.size
    return placement.words if isinstance(placement, Unknown) else type(placement)


class _Groups:
    """The group of ranks of each placement of a rank, and the rank's number in it."""

    def __init__(self, layouts: _Layouts, pieces: Mapping[int, LocalTensor], everyone: Sequence[int]) -> None:
        """Raises AlignmentError, with the ranks' shapes, where they contradict each other."""
        self._of: dict[int, tuple[Sequence[int], ...]] = {
            rank: tuple(everyone if p.ranks is None else p.ranks for p in layout.placements)
            for rank, layout in layouts.items()
        }
        self._number: dict[Sequence[int], dict[int, int]] = {}
        checked: set[tuple[int, Sequence[int]]] = set()
        for rank, several in self._of.items():
            for axis, group in enumerate(several):
                if rank not in self.numbers(group):
                    named = f"names {ranks_text(group)}, without rank {rank}"
                    raise AlignmentError(f"the layout of rank {rank} {named}; {shapes_text(pieces)}")
                if (axis, group) in checked:
                    continue
                checked.add((axis, group))
                for other in group:
                    if other in self._of and self._of[other][axis] != group:
                        theirs = self._of[other][axis]
                        how = "order ranks differently" if set(theirs) == set(group) else "overlap"
                        raise AlignmentError(
                            f"layouts {how}: rank {rank} names {ranks_text(group)}, rank {other} {ranks_text(theirs)}; "
                            f"{shapes_text(pieces)}"
                        )

    def of(self, rank: int) -> tuple[Sequence[int], ...]:
        """Return the group of each of a rank's placements."""
        return self._of[rank]

    def place(self, rank: int, axes: Iterable[int]) -> tuple[int, ...]:
        """Return a rank's numbers in its groups along some axes of the mesh."""
        return tuple(self.numbers(self._of[rank][axis])[rank] for axis in axes)

    def numbers(self, group: Sequence[int]) -> dict[int, int]:
        """Return each rank's number in a group."""
        if group not in self._number:
            self._number[group] = {rank: number for number, rank in enumerate(group)}
        return self._number[group]

    def connected_sets(self, axes: Iterable[int] | None = None, ranks: Iterable[int] | None = None) -> list[list[int]]:
        """Return the sets of ranks that groups connect, along some axes or all; sorted, the lowest rank's set first."""
        parent: dict[int, int] = {}

        def root(rank: int) -> int:
            while parent.setdefault(rank, rank) != rank:
                parent[rank] = parent[parent[rank]]
                rank = parent[rank]
            return rank

        wanted = list(self._of if ranks is None else ranks)
        done: set[Sequence[int]] = set()
        for rank in wanted:
            root(rank)
            for axis in range(len(self._of[rank])) if axes is None else axes:
                group = self._of[rank][axis]
                if group not in done:
                    done.add(group)
                    for other in group:
                        parent[root(other)] = root(rank)
        sets: dict[int, list[int]] = defaultdict(list)
        for rank in sorted(wanted):
            sets[root(rank)].append(rank)
        return list(sets.values())


def _whole(pieces: Mapping[int, LocalTensor], layouts: _Layouts, groups: _Groups) -> GlobalTensor:
    """Return the whole that connected ranks make up."""
    first = min(pieces)
    dims, placements = len(pieces[first].shape), layouts[first].placements
    if layouts[first].spans is None:
        along = [_DimensionCuts(dim, pieces, layouts, groups) for dim in range(dims)]
        shape = tuple(each.size for each in along)
        spans: dict[int, Sequence[Spans]] = {rank: [each.spans[rank] for each in along] for rank in pieces}
    else:
        shape, spans = _known_spans(pieces, layouts)
    placed = {rank: _pieces(pieces[rank].shape, spans[rank]) for rank in pieces}
    summed = [axis for axis, placement in enumerate(placements) if isinstance(placement, Partial)]
    missing = {member for rank in pieces for group in groups.of(rank) for member in group} - set(pieces)
    if not summed:
        return GlobalTensor(shape, placed, {}, tuple(sorted(missing)))
    unnamed = any(placements[axis].ranks is None for axis in summed)
    if unnamed and len(placements) > 1 and any(isinstance(placement, Replicate) for placement in placements):
        raise AlignmentError(f"{layouts[first].brief}: summands beside replicas of them: tell the ranks of each")
    if missing:
        raise AlignmentError(
            f"the summand of {ranks_text(sorted(missing))} is missing, so the sum is not known; {shapes_text(pieces)}"
        )
    summands: dict[int, tuple[int, ...]] = {}
    for ranks in groups.connected_sets(summed, pieces):
        alike: dict[tuple[TensorBox, ...], list[int]] = defaultdict(list)
        for rank in ranks:
            alike[placed[rank]].append(rank)
        if len(alike) > 1 and not unnamed:
            raise AlignmentError(f"summands lie in different places: {shapes_text({r: pieces[r] for r in ranks})}")
        summands |= {same[0]: tuple(same[1:]) for same in alike.values()}
    return GlobalTensor(shape, {rank: placed[rank] for rank in summands}, summands)


def _pieces(shape: Shape, spans: Sequence[Spans]) -> tuple[TensorBox, ...]:
    """Return the boxes that stretches along each dimension make up."""
    if 0 in shape:
        start = tuple(each[0][0] if each else 0 for each in spans)
        return (TensorBox(Region.whole(shape), Region(start, shape)),)
    choices = []
    for each in spans:
        locals_ = itertools.accumulate((length for _, length in each), initial=0)
        boxes = [(local, start, length) for (start, length), local in zip(each, locals_, strict=False)]
        choices.append([box for box in boxes if box[2]])
    return tuple(
        TensorBox(
            Region(tuple(local for local, _, _ in box), tuple(length for _, _, length in box)),
            Region(tuple(start for _, start, _ in box), tuple(length for _, _, length in box)),
        )
        for box in itertools.product(*choices)
    )


def _known_spans(pieces: Mapping[int, LocalTensor], layouts: _Layouts) -> tuple[Shape, dict[int, Sequence[Spans]]]:
    """Return the places that DTensors and other tools' dumps declare: the whole's shape, and each rank's spans."""
    wholes = sorted({layout.whole_shape or () for layout in layouts.values()})
    if len(wholes) != 1:
        raise AlignmentError(f"ranks tell different wholes: {', '.join(str(list(whole)) for whole in wholes)}")
    spans = {rank: layout.spans or () for rank, layout in layouts.items()}
    for rank, each in spans.items():
        if tuple(sum(length for _, length in along) for along in each) != pieces[rank].shape:
            places = [list(map(list, along)) for along in each]
            raise AlignmentError(f"{list(pieces[rank].shape)} on rank {rank} cannot lie at {places} of the whole")
    return wholes[0], dict(spans)


class _DimensionCuts:
    """The cuts of one dimension among connected ranks: the whole's `size`, and each rank's `spans`."""

    def __init__(self, dim: int, pieces: Mapping[int, LocalTensor], layouts: _Layouts, groups: _Groups) -> None:
        """Raises AlignmentError, with the ranks and their shapes, where sizes do not fit."""
        self._pieces = pieces
        self._sizes = {rank: piece.shape[dim] for rank, piece in pieces.items()}
        self._layouts = layouts
        self._groups = groups
        first = min(pieces)
        dims = len(pieces[first].shape)
        placements = layouts[first].placements
        axes = [a for a, p in enumerate(placements) if isinstance(p, Shard) and p.dim % dims == dim]
        self._dim, self._axes = dim, axes
        if not axes:
            if len(set(self._sizes.values())) > 1:
                raise self._error("is not cut, but sizes differ")
            self.size = self._sizes[first]
            self.spans: dict[int, Spans] = dict.fromkeys(pieces, ((0, self.size),))
            return
        shards = [placements[axis] for axis in axes]
        special = [
            s for s in shards if isinstance(s, Shard) and (s.parts is not None or s.zigzag or s.size is not None)
        ]
        if special and len(shards) > 1:
            raise self._error("is cut twice, which only plain slices can be")
        self._count = math.prod(len(groups.of(first)[axis]) for axis in axes)
        self._places = {rank: self._place(rank) for rank in pieces}
        cuts = self._cuts(self._by_place(self._sizes), self._count)
        self.size = cuts[-1]
        self.spans = {rank: ((cuts[place], self._sizes[rank]),) for rank, place in self._places.items()}
        for shard in special:
            if not isinstance(shard, Shard):
                continue
            if shard.zigzag:
                self._zigzag()
            elif shard.size is not None:
                self._drop_padding(shard.size)
            else:
                self._parts()

    def _place(self, rank: int) -> int:
        """Return the number of a rank's slice, the outermost axis counting most."""
        place = 0
        for axis, number in zip(self._axes, self._groups.place(rank, self._axes), strict=True):
            place = place * len(self._groups.of(rank)[axis]) + number
        return place

    def _by_place(self, sizes: Mapping[int, int], copies: int = 1) -> dict[int, int]:
        """Return sizes by the number of the slice, which `copies` neighbours share; all that hold one must agree."""
        found: dict[int, int] = {}
        for rank, place in self._places.items():
            if found.setdefault(place // copies, sizes[rank]) != sizes[rank]:
                raise self._error(f"has slices {place // copies} of different sizes")
        return found

    def _cuts(self, sizes: Mapping[int, int], count: int) -> list[int]:
        """Return the starts of all `count` slices, and the end of the last."""
        if len(sizes) == count:
            return [0, *itertools.accumulate(sizes[place] for place in range(count))]
        if len(set(sizes.values())) > 1:
            raise self._error(f"has {count} slices of different sizes, and {count - len(sizes)} are missing")
        size = next(iter(sizes.values()))
        return [place * size for place in range(count + 1)]

    def _zigzag(self) -> None:
        size = self._even_size()
        if size % 2:
            raise self._error("is in zigzag order, for which local sizes must be even")
        chunk = size // 2
        self.spans = {
            rank: ((place * chunk, chunk), ((2 * self._count - 1 - place) * chunk, chunk))
            for rank, place in self._places.items()
        }

    def _even_size(self) -> int:
        sizes = set(self._sizes.values())
        if len(sizes) > 1:
            raise self._error("is in zigzag order, for which local sizes must be equal")
        return sizes.pop()

    def _drop_padding(self, size: int) -> None:
        if self.size < size:
            raise self._error(f"has size={size}, but the slices add up to {self.size}")
        self.size = size
        for rank, ((start, length),) in list(self.spans.items()):
            self.spans[rank] = ((start, min(length, size - start)),) if start < size else ()

    def _parts(self) -> None:
        """Cut each of several parts by itself; a rank holds its slices of them side by side."""
        parts = {rank: self._parts_of(rank) for rank in self._pieces}
        counts = {len(each) for each in parts.values()}
        if len(counts) > 1:
            raise self._error("is made up of different numbers of parts")
        self.spans = dict.fromkeys(self._pieces, ())
        self.size = 0
        for number in range(counts.pop()):
            shared = {each[number][1] for each in parts.values()}
            if len(shared) > 1:
                raise self._error("has parts of which different numbers of ranks hold a slice")
            copies = shared.pop()
            sizes = {rank: each[number][0] for rank, each in parts.items()}
            cuts = self._cuts(self._by_place(sizes, copies), self._count // copies)
            for rank, place in self._places.items():
                self.spans[rank] += ((self.size + cuts[place // copies], sizes[rank]),)
            self.size += cuts[-1]

    def _parts_of(self, rank: int) -> Sequence[tuple[int, int]]:
        """Return the sizes of the parts as a rank holds them, each with how many neighbours hold the same."""
        placement = self._layouts[rank].placements[self._axes[0]]
        assert isinstance(placement, Shard)
        parts = placement.sizes_and_copies
        if uneven := next((copies for _, copies in parts if self._count % copies), None):
            raise self._error(
                f"has a slice for each {uneven} of {self._count} ranks, which do not divide into such groups"
            )
        if sum(size for size, _ in parts) == self._sizes[rank]:
            return parts
        if sum(size * copies for size, copies in parts) != self.size:
            raise self._error(
                f"has parts={placement.parts}, which add up to {sum(size for size, _ in parts)}: neither to the "
                f"{self._sizes[rank]} of rank {rank} nor to the {self.size} of the whole"
            )
        if any(size * copies % self._count for size, copies in parts):
            raise self._error(
                f"has parts={placement.parts} of the whole, which {self._count} ranks cannot share evenly"
            )
        return [(size * copies // self._count, copies) for size, copies in parts]

    def _error(self, what: str) -> AlignmentError:
        layout = self._layouts[min(self._layouts)].brief
        return AlignmentError(f"layout {layout}: dimension {self._dim} {what}; {shapes_text(self._pieces)}")


def stack_groups(reading: LayoutInterpretation, dim: int) -> LayoutInterpretation | None:
    """Return the wholes of groups of ranks as slices of one along `dim`, in their order; None where they do not fit.

    That is how a batch lies that data-parallel groups share.
    """
    wholes = reading.wholes
    shape = wholes[0].shape
    if (
        len({(len(whole.shape), whole.shape[:dim], whole.shape[dim + 1 :]) for whole in wholes}) > 1
        or len(shape) <= dim
    ):
        return None
    cuts = [0, *itertools.accumulate(whole.shape[dim] for whole in wholes)]

    def move(pieces: tuple[TensorBox, ...], start: int) -> tuple[TensorBox, ...]:
        by = tuple(start if d == dim else 0 for d in range(len(shape)))
        return tuple(TensorBox(piece.local, piece.whole.translate(by)) for piece in pieces)

    together = GlobalTensor(
        (*shape[:dim], cuts[-1], *shape[dim + 1 :]),
        {
            rank: move(pieces, start)
            for whole, start in zip(wholes, cuts, strict=False)
            for rank, pieces in whole.pieces.items()
        },
        {rank: others for whole in wholes for rank, others in whole.summands.items()},
        tuple(rank for whole in wholes for rank in whole.missing),
    )
    return LayoutInterpretation(f"Shard(dim={dim}) of groups of ranks, each {reading.words}", False, (together,))

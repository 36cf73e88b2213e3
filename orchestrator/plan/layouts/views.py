"""Views: the same elements in the same order under another shape, where the shapes of two sides do not fit as stored.

Dimensions of one are dropped; leading dimensions are merged, or the first one is split; and two leading dimensions of
the actual side are exchanged, which is not the same order and has to be proved on the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

from aclcmp.labeling.layout import Layout, Placement, Shard, Spans
from aclcmp.orchestrator.core.regions import Pair, Region, Source
from aclcmp.orchestrator.plan.layouts.alignment import Alignment, LabelSide, find_alignments
from aclcmp.orchestrator.plan.layouts.interpretations import SAME_SHAPE, AlignmentError, LocalTensor, Shape

_MOST_ONES = 4
"""Dimensions of one of which all subsets are tried; of more, all are dropped or none."""
_MOST_SLICES = 256
"""Slices, each a pair, that a transposed tensor may have on one rank."""


@dataclass(frozen=True, slots=True)
class View:
    """Another shape of a tensor. The steps follow each other: drop, merge or split, exchange."""

    dropped: tuple[int, ...] = ()
    """Dimensions of one that are left out."""
    merged: int = 1
    """Number of leading dimensions that become one."""
    inner: int = 0
    """Size of the second of two dimensions into which the first is split; 0 if it is not."""
    outer: int = 0
    """Size of the first of two dimensions into which the first is split; 0 if it is not."""
    exchanged: bool = False
    """True if the first two dimensions change places: the elements are in another order than they are stored."""

    def shape(self, stored: Shape) -> Shape:
        """Return the shape in which a tensor is seen. Raises AlignmentError."""
        seen = self._shape_in_order(stored)
        return (seen[1], seen[0], *seen[2:]) if self.exchanged else seen

    def _shape_in_order(self, stored: Shape) -> Shape:
        seen = tuple(size for dim, size in enumerate(stored) if dim not in self.dropped)
        if self.merged > 1:
            return (math.prod(seen[: self.merged]), *seen[self.merged :])
        known = self.inner or self.outer
        if not known:
            return seen
        other, rest = divmod(seen[0], known)
        if rest or not other:
            raise AlignmentError(f"{seen[0]} is no multiple of {known}")
        return (other, known, *seen[1:]) if self.inner else (known, other, *seen[1:])

    def layout(self, layout: Layout | None, stored: Shape) -> Layout | None:
        """Return the seen tensor's layout by that of the stored one. Raises AlignmentError where it says nothing."""
        if layout is None:
            return None
        kept = [dim for dim in range(len(stored)) if dim not in self.dropped]
        placements = tuple(self._placement(each, kept, stored) for each in layout.placements)
        if layout.spans is None or layout.whole_shape is None:
            return Layout(placements)
        whole, spans = layout.whole_shape, layout.spans
        if self.inner or self.outer or any(whole[dim] != 1 for dim in self.dropped):
            raise AlignmentError("the dimension is cut")
        inner = kept[1 : self.merged]
        if any(spans[dim] != ((0, whole[dim]),) for dim in inner):
            raise AlignmentError("a dimension behind the first is cut")
        times = math.prod(whole[dim] for dim in inner)
        first: Spans = tuple((start * times, length * times) for start, length in spans[kept[0]])
        shape = (whole[kept[0]] * times, *(whole[dim] for dim in kept[self.merged :]))
        seen = (first, *(spans[dim] for dim in kept[self.merged :]))
        if self.exchanged:
            shape, seen = (shape[1], shape[0], *shape[2:]), (seen[1], seen[0], *seen[2:])
        return Layout(placements, shape, seen)

    def _placement(self, placement: Placement, kept: Sequence[int], stored: Shape) -> Placement:
        if not isinstance(placement, Shard):
            return placement
        if not -len(stored) <= placement.dim < len(stored):
            raise AlignmentError("no such dimension")
        dim = placement.dim % len(stored)
        split = bool(self.inner or self.outer)
        if dim not in kept or dim in kept[1 : self.merged] or (split and dim == kept[0]):
            raise AlignmentError("the dimension is cut")
        if dim == kept[0] and self.merged > 1:
            return self._merge_cuts(placement, stored[dim], math.prod(stored[d] for d in kept[1 : self.merged]))
        seen = max(kept.index(dim) - self.merged + 1, 0) + split
        if self.exchanged and seen < 2:
            seen = 1 - seen
        dims = len(kept) - self.merged + 1 + split
        return replace(placement, dim=seen - dims if placement.dim < 0 else seen)

    def _merge_cuts(self, shard: Shard, size: int, times: int) -> Shard:
        """Return the cuts of a first dimension as those of the merged one, which has `times` as many elements."""
        if self.exchanged or (shard.zigzag and size % 2):
            raise AlignmentError("the dimension is cut")
        parts = None if shard.parts is None else tuple((size * times, n) for size, n in shard.sizes_and_copies)
        return replace(shard, dim=0, parts=parts, size=None if shard.size is None else shard.size * times)

    def stored_layout(self, layout: Layout, dims: int) -> Layout:
        """Return the layout of the stored tensor, of `dims` dimensions, that plain slices of the seen one have."""
        kept = [dim for dim in range(dims) if dim not in self.dropped]
        back = [kept[0], *kept[self.merged :]]
        if self.inner or self.outer:
            back = [kept[0], *back]
        if self.exchanged:
            back[:2] = reversed(back[:2])
        return Layout(
            tuple(replace(each, dim=back[each.dim]) if isinstance(each, Shard) else each for each in layout.placements)
        )

    def words(self, stored: Shape) -> str:
        """Return the view in words: "[1, 5, 576] as [5, 576]"; "" where nothing changes."""
        inside = self._shape_in_order(stored)
        text = f"{list(stored)} as {list(inside)}" if inside != stored else f"{list(stored)}" * self.exchanged
        return f"{text} transposed to {list(self.shape(stored))}" if self.exchanged else text


_PLAIN = View()


@dataclass(frozen=True, slots=True)
class Views:
    """Views of both sides under which they are aligned."""

    golden: View
    actual: View
    alignment: Alignment
    certain: bool
    """False if nothing but the values can tell that this is meant."""

    def lines(self, label: str, golden: Shape, actual: Shape) -> tuple[str, ...]:
        """Return the lines of a layouts file that declare this for a label, for the dimensions as stored."""
        return tuple(
            dict.fromkeys(
                f"{side}{label} -> {view.stored_layout(layout, len(stored))}"
                for side, view, reading, stored in (
                    ("golden ", self.golden, self.alignment.golden, golden),
                    ("", self.actual, self.alignment.actual, actual),
                )
                for layout in reading.layouts.values()
            )
        )

    def words(self, golden: Shape, actual: Shape) -> str:
        """Return the views and the layout under them, in the report's words."""
        sides = ("golden ", self.golden.words(golden)), ("", self.actual.words(actual))
        parts = [f"{side}{words}" for side, words in sides if words]
        layout = self.alignment.layout
        return "; ".join([*parts, layout] if layout != SAME_SHAPE else parts)


@dataclass(frozen=True, slots=True)
class _Choice:
    golden: View
    actual: View
    certain: bool = True


def find_views(golden: LabelSide, actual: LabelSide, *, one_run: bool) -> tuple[list[Views], list[Views]]:
    """Return the views under which two sides fit that do not fit as they are stored, and those to try if they fail.

    Dimensions of one go before merges, and merges before a transposition; of the first that fit, all are returned.
    """
    found: list[Views] = []
    for _, choices in groupby(_choices(golden, actual), key=lambda each: each[0]):
        for choice in dict.fromkeys(choice for _, choice in choices):
            found += _align(golden, actual, choice, one_run)
        found = _without_equals(found)
        if found:
            break
    return found, _transposed_merges(golden, actual, found, one_run)


def _align(golden: LabelSide, actual: LabelSide, choice: _Choice, one_run: bool) -> list[Views]:
    try:
        seen = [see_side(side, view) for side, view in ((golden, choice.golden), (actual, choice.actual))]
        alignments = find_alignments(seen[0], seen[1], one_run=one_run)
    except AlignmentError:
        return []
    return [Views(choice.golden, choice.actual, each, choice.certain) for each in alignments]


def see_side(side: LabelSide, view: View) -> LabelSide:
    """Return one side under a view. Raises AlignmentError."""
    if view == _PLAIN:
        return side
    pieces = {
        rank: LocalTensor(view.shape(each.shape), view.layout(each.layout, each.shape), each.host)
        for rank, each in side.pieces.items()
    }
    return LabelSide(pieces, side.world_size, side.alike)


def _choices(golden: LabelSide, actual: LabelSide) -> Iterator[tuple[object, _Choice]]:
    """Yield pairs of views in the order in which they are tried, each with the step to which it belongs."""
    shapes = [{each.shape for each in side.pieces.values()} for side in (golden, actual)]
    if any(len({len(shape) for shape in side}) != 1 for side in shapes):
        return
    dims = [len(next(iter(side))) for side in shapes]
    drops = sorted(
        ((g, a) for g in _subsets_of_ones(shapes[0]) for a in _subsets_of_ones(shapes[1])),
        key=lambda each: len(each[0]) + len(each[1]),
    )
    left = [(dims[0] - len(g), dims[1] - len(a)) for g, a in drops]
    for (g, a), (of_golden, of_actual) in zip(drops, left, strict=True):
        if of_golden == of_actual and (g or a):
            yield (0, len(g) + len(a)), _Choice(View(g), View(a))
    for (g, a), (of_golden, of_actual) in zip(drops, left, strict=True):
        step = 1, len(g) + len(a)
        merged = abs(of_golden - of_actual) + 1
        certain = min(of_golden, of_actual) > 1  # [4] beside [2, 2]: the order of a matrix may be any
        if of_golden == of_actual or not min(of_golden, of_actual):
            continue
        if of_golden > of_actual:
            yield step, _Choice(View(g, merged), View(a), certain)
        else:
            yield step, _Choice(View(g), View(a, merged), certain)
        if merged == 2:
            first = min(shapes[of_golden < of_actual])
            outer = next(size for dim, size in enumerate(first) if dim not in (g if of_golden > of_actual else a))
            views = (View(g), View(a, outer=outer)) if of_golden > of_actual else (View(g, outer=outer), View(a))
            if outer > 1:
                yield step, _Choice(*views, certain)
    for (g, a), (of_golden, of_actual) in zip(drops, left, strict=True):
        if of_golden == of_actual > 1:
            yield (2, len(g) + len(a)), _Choice(View(g), View(a, exchanged=True), certain=False)


def _subsets_of_ones(shapes: set[Shape]) -> list[tuple[int, ...]]:
    dims = len(next(iter(shapes)))
    ones = [dim for dim in range(dims) if all(shape[dim] == 1 for shape in shapes)]
    if len(ones) > _MOST_ONES:
        return [(), tuple(ones)]
    return [each for size in range(len(ones) + 1) for each in combinations(ones, size)]


def _without_equals(found: list[Views]) -> list[Views]:
    """Keep one of those under which the same elements meet."""
    if len(found) < 2:
        return found
    kept: dict[object, Views] = {}
    for views in found:
        kept.setdefault(_meeting_elements(views), views)
    return list(kept.values())


def _meeting_elements(views: Views) -> object:
    """Return which elements of the flat sides meet, in a form that is equal for equal ones and short for plain ones.

    Runs along the last cut dimension are told by their places in both local tensors.
    """
    alignment = views.alignment
    found: list[tuple[object, ...]] = []
    for rank in sorted(alignment.actual_side.pieces):
        try:
            regions, left = alignment.place(rank)
        except AlignmentError as error:
            found.append((rank, str(error)))
            continue
        golden, actual = alignment.golden_side.pieces, alignment.actual_side.pieces[rank].shape
        meeting = [
            (
                each.golden_rank,
                each.golden_summands,
                each.actual_summands,
                _strides(golden[each.golden_rank].shape, each.golden_region),
                _strides(actual, each.actual_region),
            )
            for each in regions
        ]
        found.append((rank, tuple(sorted(meeting)), sum(region.size for region in left)))
    return tuple(found), views.actual.exchanged


def _strides(shape: Shape, region: Region) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return where a region begins in a flat tensor, and the sizes and strides of its dimensions, joined if dense."""
    step, base = 1, 0
    levels: list[tuple[int, int]] = []
    for whole, start, size in zip(reversed(shape), reversed(region.start), reversed(region.shape), strict=True):
        base += start * step
        if size != 1 and levels and levels[-1][0] * levels[-1][1] == step:
            levels[-1] = (levels[-1][0] * size, levels[-1][1])
        elif size != 1:
            levels.append((size, step))
        step *= whole
    return base, tuple(levels)


def _transposed_merges(golden: LabelSide, actual: LabelSide, found: list[Views], one_run: bool) -> list[Views]:
    """Return the views under which two merged dimensions lie in the other order: [B, S, H] beside [S * B, H]."""
    others: list[Views] = []
    for views in found:
        merged = views.golden.merged, views.actual.merged
        if sorted(merged) != [1, 2]:
            continue
        higher, side = (views.golden, golden) if merged[0] == 2 else (views.actual, actual)
        stored = min(each.shape for each in side.pieces.values())
        outer = next(size for dim, size in enumerate(stored) if dim not in higher.dropped)
        if outer < 2:
            continue
        if merged[0] == 2:
            choice = _Choice(replace(higher, merged=1), replace(views.actual, inner=outer, exchanged=True), False)
        else:
            choice = _Choice(replace(views.golden, inner=outer), replace(higher, merged=1, exchanged=True), False)
        others += _align(golden, actual, choice, one_run)
    return _without_equals(others)


def transposed_slices(pair: Pair) -> Iterator[Pair]:
    """Yield the slices of a pair whose actual tensor is stored with its first two dimensions in the other order.

    The shape of `pair.actual` has them in golden's order. Each slice is a box of both tensors as they are stored, seen
    in another shape. Raises AlignmentError for more than _MOST_SLICES.
    """
    outer, inner, *rest = pair.actual.shape
    first, second, *start = pair.actual_region.start
    rows, columns, *sizes = pair.actual_region.shape
    if min(rows, columns) > _MOST_SLICES:
        raise AlignmentError(f"transposed, in {min(rows, columns):,} slices: {_MOST_SLICES} are the most")
    if not rest:  # a column of a matrix is a box in three dimensions only
        rest, start, sizes = [1], [0], [1]
        pair = replace(
            pair,
            golden=_see(pair.golden, (*pair.golden.shape, 1)),
            more_golden=tuple(_see(each, (*each.shape, 1)) for each in pair.more_golden),
            golden_region=_add_one(pair.golden_region),
            region=_add_one(pair.region),
            whole_shape=(*pair.whole_shape, 1),
        )
    width, *tail = rest
    by_row = rows <= columns
    for number in range(min(rows, columns)):
        if by_row:
            shape = (1, inner, outer * width, *tail)
            region = Region((0, second, (first + number) * width + start[0], *start[1:]), (1, columns, *sizes))
        else:
            shape = (inner * outer, 1, *rest)
            region = Region(((second + number) * outer + first, 0, *start), (rows, 1, *sizes))
        dim = 0 if by_row else 1

        def cut(box: Region, dim: int = dim, number: int = number, size: Shape = region.shape) -> Region:
            return Region(tuple(s + number * (d == dim) for d, s in enumerate(box.start)), size)

        yield replace(
            pair,
            golden_region=cut(pair.golden_region),
            actual=_see(pair.actual, shape),
            actual_region=region,
            region=cut(pair.region),
            more_actual=tuple(_see(each, shape) for each in pair.more_actual),
        )


def _see(source: Source, shape: Shape) -> Source:
    return replace(source, shape=shape)


def _add_one(region: Region) -> Region:
    return Region((*region.start, 0), (*region.shape, 1))

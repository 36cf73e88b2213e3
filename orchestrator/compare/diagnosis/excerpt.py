"""Excerpt of a (label, rank) on which fits are tried: a box of bounded size where the error is largest. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.element_values import components_of
from aclcmp.orchestrator.core.regions import Pair, Region
from aclcmp.orchestrator.core.stats import RowSums

MOST_NUMBERS = 1 << 18
"""Most numbers of a side that fits are tried on: 2 MiB in float64, of which a fit needs several times as much."""


@dataclass(frozen=True, slots=True)
class PlacedPair:
    """Pair with the place of its region in a box that several pairs fill."""

    pair: Pair
    place: Region


def place_pairs(pairs: Sequence[Pair]) -> tuple[tuple[int, ...], list[PlacedPair]]:
    """Return the shape of the box that the pairs of one (label, rank) fill, and the place of each in it.

    The box is the rank's local tensor if the pairs fill it, else a part of the global tensor. If they fill no box, only
    the largest pair is returned.
    """
    one_tensor = len({pair.actual for pair in pairs}) == 1
    candidates = [[pair.actual_region for pair in pairs]] if one_tensor else []
    candidates.append([pair.region for pair in pairs])
    for regions in candidates:
        start = tuple(min(starts) for starts in zip(*(region.start for region in regions), strict=True))
        end = tuple(max(ends) for ends in zip(*(region.end for region in regions), strict=True))
        shape = tuple(b - a for a, b in zip(start, end, strict=True))
        if math.prod(shape) == sum(region.size for region in regions):  # they are disjoint
            back = tuple(-each for each in start)
            return shape, [
                PlacedPair(pair, region.translate(back)) for pair, region in zip(pairs, regions, strict=True)
            ]
    largest = max(pairs, key=lambda pair: pair.region.size)
    return largest.region.shape, [PlacedPair(largest, Region.whole(largest.region.shape))]


def excerpt_of(pairs: Sequence[Pair], rows: RowSums, most: int = MOST_NUMBERS) -> tuple[Pair, ...]:
    """Return pairs that fill a box of at most `most` numbers, with as many whole consecutive rows as possible.

    `rows` are the sums by row of the (label, rank): along the first axis that is cut, the box lies where the error is
    largest.
    """
    if not pairs or not any(pair.region.size for pair in pairs):
        return ()
    shape, each = place_pairs([pair for pair in pairs if pair.region.size])
    most = max(most // components_of(pairs[0].actual.dtype), 1)
    start, size = [0] * len(shape), list(shape)
    for axis in range(len(shape)):
        slab = math.prod(size[axis + 1 :])
        length = min(max(most // slab, 1), size[axis])
        if length == size[axis] and slab <= most:
            break
        start[axis] = _worst_stretch(each, axis, size[axis], length, rows)
        size[axis] = length
        most = max(most // length, 1)
    box = Region(tuple(start), tuple(size))
    return tuple(cut for item in each if (cut := _within(item, box)) is not None)


def _worst_stretch(each: Sequence[PlacedPair], axis: int, size: int, length: int, rows: RowSums) -> int:
    """Return the start of the `length` neighbours along an axis that hold the most error."""
    energy = np.zeros(size)
    for item in each:
        whole = item.pair.whole_shape
        if axis >= len(whole) - 1 or not rows.index.size:
            return 0
        at = np.unravel_index(np.minimum(rows.index * rows.group, math.prod(whole[:-1]) - 1), whole[:-1])[axis]
        place: npt.NDArray[np.int64] = at - item.pair.region.start[axis] + item.place.start[axis]
        inside = (place >= item.place.start[axis]) & (place < item.place.end[axis])
        energy += np.bincount(place[inside], rows.sum_dd[inside], size)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    return int(np.argmax(sums[length:] - sums[:-length]))


def _within(item: PlacedPair, box: Region) -> Pair | None:
    """Cut a pair to its part inside a box; None if there is none."""
    begin = tuple(max(a, b) for a, b in zip(item.place.start, box.start, strict=True))
    end = tuple(min(a, b) for a, b in zip(item.place.end, box.end, strict=True))
    shape = tuple(b - a for a, b in zip(begin, end, strict=True))
    if any(side <= 0 for side in shape):
        return None
    by = tuple(a - b for a, b in zip(begin, item.place.start, strict=True))

    def cut(region: Region) -> Region:
        return Region(region.translate(by).start, shape)

    pair = item.pair
    return replace(
        pair,
        golden_region=cut(pair.golden_region),
        actual_region=cut(pair.actual_region),
        region=cut(pair.region),
    )

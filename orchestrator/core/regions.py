"""Boxes of a whole tensor, and where the bytes of one lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Region:
    """A box: `shape[i]` elements from `start[i]` on along dimension i. A 0-d tensor has the region `((), ())`."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @staticmethod
    def whole(shape: tuple[int, ...]) -> Region:
        """Return the region that covers all of a tensor of `shape`."""
        return Region((0,) * len(shape), shape)

    def translate(self, by: tuple[int, ...]) -> Region:
        """Return the region of the same shape that begins `by` further along each dimension."""
        return Region(tuple(a + b for a, b in zip(self.start, by, strict=True)), self.shape)

    @property
    def end(self) -> tuple[int, ...]:
        """End along each dimension (exclusive)."""
        return tuple(s + n for s, n in zip(self.start, self.shape, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of it in an array of the tensor."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.shape, strict=True))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class RowPlaces:
    """Places of the rows of a tensor that is gathered from stored ones: row i is row `row[i]` of piece `piece[i]`.

    A piece is a stored tensor: `rows` of them, dense, from byte `offset` of `paths[file]`. `checksum` is of its bytes,
    0 where nobody took one.
    """

    paths: tuple[str, ...]
    file: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    checksum: npt.NDArray[np.uint64]
    piece: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowPlaces):
            return NotImplemented
        arrays = ("file", "offset", "rows", "checksum", "piece", "row")
        return self.paths == other.paths and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )

    def __hash__(self) -> int:
        return hash((self.paths, self.offset[:1].tobytes(), len(self.row)))


@dataclass(frozen=True, slots=True)
class Source:
    """A stored tensor: `shape` elements of `dtype` (torch's name), dense in C order, from byte `offset` of `path`.

    Where `capture` is not "full" there is a packed summary of `nbytes` bytes of the tensor instead. `rank` labelled it:
    the file lies on the host where that ran. `checksum` is XXH3 of the stored bytes, None where nobody took one.
    Where `places` are given, the tensor's rows, or their packed summaries, lie there, and `path` is only the first of
    their files.
    """

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    capture: str = "full"
    nbytes: int = 0
    rank: int = 0
    checksum: int | None = None
    places: RowPlaces | None = None

    @property
    def is_whole(self) -> bool:
        """True if the tensor itself is there."""
        return self.capture == "full"


class LabelKey(NamedTuple):
    """Name of a label across ranks and sides.

    A tuple, for a plan of a million of them looks each up several times: a dataclass hashes five times slower.
    """

    task: int
    label: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The same region of the whole tensor on both sides, as one rank holds it.

    A label may make several pairs on one rank: their regions are disjoint and their statistics add up.
    `golden_region` lies within `golden.shape`, `actual_region` within `actual.shape`, `region` within `whole_shape`.
    All three have the same shape.

    A side whose tensor is a sum over ranks names the first summand as `golden` or `actual` and the others in
    `more_golden` or `more_actual`: of the same dtype and shape, with the same region of each.
    """

    key: LabelKey
    rank: int
    golden: Source
    golden_region: Region
    actual: Source
    actual_region: Region
    whole_shape: tuple[int, ...]
    region: Region
    layout: str
    more_golden: tuple[Source, ...] = ()
    more_actual: tuple[Source, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """All that is read for it, of both sides."""
        return (self.golden, *self.more_golden, self.actual, *self.more_actual)

    @property
    def is_whole(self) -> bool:
        """True if all of it is there as tensors, nothing as a summary."""
        return all(source.is_whole for source in self.sources)

"""The summary that is kept instead of a tensor: moments, norms by row, digests, and random projections.

From the projections of x and y follows an unbiased estimate of |x - y|^2. It is a count sketch (Charikar, Chen,
Farach-Colton 2002) of K = 1,024 buckets, read as Alon, Matias and Szegedy (1996) do: element i lies in line q = i div
K, at place p = i mod K, and sketch[(p + shift[q]) mod K] += sign[i] x[i]. With independent random signs and shifts, two
elements of one line never meet and two of different lines meet with probability 1/K. So |sketch_x - sketch_y|^2 has a
relative standard deviation of at most sqrt(2/K) = 4.4 %, which is 2.2 % of |x - y|, whatever the error looks like: one
element, a column of any stride, a constant. Signs and shifts are raw words of Philox, a stream that numpy promises not
to change: for each 64 lines 16 words of signs per line (lowest bit of the lowest byte first, 1 is minus), then for
each line a word whose lowest 10 bits are its shift.

One wrong row among many disappears in that estimate. So each of at most 256 groups of rows has its own projection too,
with the same signs and 16 buckets (i mod 16): coarse, but enough to find the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.element_values import components_of

SKETCH_SIZE = 1024
ROW_SKETCH_SIZE = 16
MAX_ROW_SKETCHES = 256
MAX_ROWS = 4096
"""Tensors of more rows than this are summed by groups of rows."""

_VERSION = 3
_HEAD = 19  # numbers before the norms by row
_MOST = _HEAD + MAX_ROWS + SKETCH_SIZE + MAX_ROW_SKETCHES * ROW_SKETCH_SIZE
_Float64 = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class TensorSummary:
    """The summary of a tensor; complex elements count as two. Sums and extremes cover finite values, in float64."""

    n: int
    nan: int
    posinf: int
    neginf: int
    sum: float
    sum_squares: float
    min: float
    """+inf when no value is finite; max is then -inf."""
    max: float
    digest: bytes
    """16 bytes: of the dense stored bits; of integers and bool as int64, whatever their width (see `digest`)."""
    places: bytes
    """8 bytes: the sum of `digest.mixed(4 i + kind)` over non-finite values i (NaN is kind 0, inf 1, -inf 2)."""
    row_group: int
    """Number of consecutive rows (last axis; a 0-d or 1-d tensor is one row) per sum: a power of two."""
    row_squares: _Float64
    """Sum of squares by row group, shape (r,) with r <= 4,096; r = 0 for an empty tensor."""
    sketch: _Float64
    """The random projection, shape (1024,), non-finite values as 0; shape (0,) when none was taken."""
    row_sketches: _Float64
    """Projections by group of rows, shape (g, 16) with g <= 256; g = 0 when none were taken."""

    @property
    def n_nonfinite(self) -> int:
        """Values that are NaN or infinite."""
        return self.nan + self.posinf + self.neginf

    def fits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Tell whether this can be the summary of such a tensor. Check a stored summary against its label's record."""
        n = math.prod(shape) * components_of(dtype)
        return (self.n, self.row_group, self.row_squares.size) == (n, *row_groups(shape))

    def pack(self) -> _Float64:
        """Return the summary as the vector that `unpack` reads, `packed_size` bytes long."""
        sums = (self.nan, self.posinf, self.neginf, self.sum, self.sum_squares, self.min, self.max)
        digests = np.frombuffer(self.digest + self.places, "<u4").tolist()
        known, sizes = head(self.n, self.row_group, self.row_squares.size, bool(self.sketch.size))
        numbers = np.array([*known, *sums, *digests, *sizes], np.float64)
        return np.concatenate([numbers, self.row_squares, self.sketch, self.row_sketches.reshape(-1)])

    @staticmethod
    def unpack(stored: _Float64 | _Bytes) -> TensorSummary:
        """Read a packed summary, as numbers or as their flat little-endian bytes. Raises ShardFormatError."""
        if stored.ndim != 1 or not _HEAD <= stored.nbytes / 8 <= _MOST or stored.nbytes % 8:
            raise ShardFormatError(f"a tensor's summary of {stored.nbytes} bytes is damaged: label the tensor again")
        raw = stored if stored.dtype == np.uint8 else stored.astype("<f8")
        numbers = np.frombuffer(raw.tobytes(), "<f8").astype(np.float64)
        if numbers[0] != _VERSION:
            raise ShardFormatError(
                f"a tensor's summary has version {numbers[0]:g}, this aclcmp reads {_VERSION}: "
                "use the version that wrote it"
            )
        _, n, nan, posinf, neginf, total, squares, least, most, *rest = numbers[:_HEAD].tolist()
        whole = (n, nan, posinf, neginf, *rest)
        if not all(number.is_integer() and 0 <= number < 2**53 for number in whole) or max(rest[:6]) >= 2**32:
            raise ShardFormatError("a tensor's summary is damaged (its counts are impossible): label the tensor again")
        *digests, row_group, rows, size, groups = map(int, rest)
        if size not in (0, SKETCH_SIZE) or numbers.size != _HEAD + rows + size + groups * ROW_SKETCH_SIZE:
            raise ShardFormatError("a tensor's summary is damaged (its length is wrong): label the tensor again")
        summary = TensorSummary(
            n=int(n),
            nan=int(nan),
            posinf=int(posinf),
            neginf=int(neginf),
            sum=total,
            sum_squares=squares,
            min=least,
            max=most,
            digest=np.array(digests[:4], "<u4").tobytes(),
            places=np.array(digests[4:], "<u4").tobytes(),
            row_group=row_group,
            row_squares=numbers[_HEAD : _HEAD + rows],
            sketch=numbers[_HEAD + rows : _HEAD + rows + size],
            row_sketches=numbers[_HEAD + rows + size :].reshape(groups, ROW_SKETCH_SIZE),
        )
        if not summary._is_sound():
            raise ShardFormatError(
                "a tensor's summary is damaged (its figures contradict each other): label the tensor again"
            )
        return summary

    def _is_sound(self) -> bool:
        """Tell whether the figures are consistent. Sums of values near float64's limit may be infinite or NaN."""
        finite = self.n - self.n_nonfinite
        extremes = (self.min, self.max) == (math.inf, -math.inf) if finite == 0 else -math.inf < self.min <= self.max
        overflowed = self.sum_squares == math.inf
        sums = np.concatenate([self.sketch, self.row_sketches.reshape(-1), [self.sum]])
        sketched = rows_per_sketch(self.row_squares.size) if self.sketch.size else 0
        return (
            finite >= 0
            and extremes
            and (finite == 0 or self.max < math.inf)
            and bool(overflowed or np.isfinite(sums).all())
            and self.sum_squares >= 0
            and bool((self.row_squares >= 0).all())
            and self.row_group.bit_count() == 1
            and (self.n > 0) == (self.row_squares.size > 0)
            and len(self.row_sketches) == (-(-self.row_squares.size // sketched) if sketched else 0)
        )


def head(n: int, row_group: int, rows: int, sketch: bool) -> tuple[list[float], list[float]]:
    """Return what a packed summary of `n` values begins with, and the sizes that follow its sums and digests.

    `rows` is the number of row groups.
    """
    groups = -(-rows // rows_per_sketch(rows)) if sketch else 0
    return [_VERSION, n], [row_group, rows, SKETCH_SIZE if sketch else 0, groups]


def row_groups(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the number of consecutive rows that are summed together, a power of two, and the number of groups."""
    rows = math.prod(shape[:-1]) if math.prod(shape) else 0
    group = neighbours_together(rows, MAX_ROWS)
    return group, -(-rows // group)


def packed_size(shape: tuple[int, ...], sketch: bool) -> int:
    """Return the bytes of a packed summary, which for a small tensor may be more than the tensor's own."""
    rows = row_groups(shape)[1]
    sketches = SKETCH_SIZE + -(-rows // rows_per_sketch(rows)) * ROW_SKETCH_SIZE if sketch else 0
    return 8 * (_HEAD + rows + sketches)


def rows_per_sketch(rows: int) -> int:
    """Return the number of consecutive row groups that share one projection: a power of two."""
    return neighbours_together(rows, MAX_ROW_SKETCHES)


def neighbours_together(count: int, most: int) -> int:
    """Return how many of `count` neighbours make a group, so that there are at most `most`: a power of two."""
    together = 1
    while -(-count // together) > most:
        together *= 2
    return together

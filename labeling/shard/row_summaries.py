"""Summaries of the rows of a label whose rows have names: of each row alone, so that it pairs wherever it lies.

Each row has the moments and digests that `tensor_summary` has of a tensor, and for a fingerprint a count sketch of 32
buckets, as there, whose signs and shifts depend on the place within the row alone: line q has 32 elements, and
sketch[(p + shift[q]) mod 32] += sign[i] x[i] for element i = 32 q + p. The relative standard deviation of
|sketch_x - sketch_y|^2 is at most sqrt(2/32) = 25 %. For each 1,024 elements of a row 16 words of Philox are the signs
(lowest bit first, 1 is minus), and 16 words the shifts, lowest half first, of which the lowest 5 bits count.

Rows are stored one behind the other, `row_size` numbers each, so that single rows can be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardFormatError

BUCKETS = 32
HEAD = 14
"""Numbers of a row before its sketch: version, 3 counts, 2 sums, 2 extremes, 6 halves of digests."""
VERSION = 1003
"""Of rows: versions of tensors' summaries are below 1,000."""
_PLACES = 1024
"""Places within a row for which random words come together."""
_KEY = 0xAC1C3D
_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RowSummaries:
    """Summaries of n rows of `width` values each; complex elements count as two."""

    width: int
    table: _Float64
    """Shape (n, 14) or, with sketches, (n, 46): the numbers as they are stored."""

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.table) * self.width

    @property
    def counts(self) -> _Float64:
        """NaN, inf and -inf of each row, shape (n, 3)."""
        return self.table[:, 1:4]

    @property
    def sums(self) -> _Float64:
        """Sum of the finite values of each row, shape (n,)."""
        return self.table[:, 4]

    @property
    def squares(self) -> _Float64:
        """Sum of squares of each row, shape (n,)."""
        return self.table[:, 5]

    @property
    def extremes(self) -> _Float64:
        """Smallest and largest finite value of each row, shape (n, 2); inf and -inf of a row that has none."""
        return self.table[:, 6:8]

    @property
    def digests(self) -> _Float64:
        """Digest of each row's bits (see `digest`) in 4 halves, shape (n, 4)."""
        return self.table[:, 8:12]

    @property
    def places(self) -> _Float64:
        """Digest of the places of each row's non-finite values in 2 halves, shape (n, 2)."""
        return self.table[:, 12:HEAD]

    @property
    def sketches(self) -> _Float64:
        """The projection of each row, shape (n, 32), non-finite values as 0; (n, 0) where none was taken."""
        return self.table[:, HEAD:]

    def pack(self) -> npt.NDArray[np.uint8]:
        """Return the stored bytes, `row_size` numbers a row."""
        return np.ascontiguousarray(self.table, "<f8").reshape(-1).view(np.uint8)

    @staticmethod
    def unpack(stored: npt.NDArray[np.uint8], rows: int, width: int) -> RowSummaries:
        """Read the stored bytes of so many rows of `width` values. Raises ShardFormatError."""
        columns = stored.size // 8 // rows if rows else HEAD
        if columns not in map(row_size, (False, True)) or stored.size != 8 * columns * rows:
            raise ShardFormatError(
                f"summaries of {rows} rows in {stored.size} bytes are damaged: label the tensor again"
            )
        table = np.frombuffer(stored.tobytes(), "<f8").astype(np.float64, copy=False).reshape(rows, columns)
        others = table[table[:, 0] != VERSION, 0]
        if others.size:
            raise ShardFormatError(
                f"a row's summary has version {others[0]:g}, this aclcmp reads {VERSION}: use the version that wrote it"
            )
        found = RowSummaries(width, table)
        if not found._is_sound():
            raise ShardFormatError(
                "a row's summary is damaged (its figures contradict each other): label the tensor again"
            )
        return found

    def _is_sound(self) -> bool:
        """Tell whether the figures are consistent. Sums of values near float64's limit may be infinite or NaN."""
        whole = np.concatenate([self.counts, self.digests, self.places], axis=1)
        if not ((whole >= 0) & (whole < 2**53) & (whole == np.floor(whole))).all() or (whole[:, 3:] >= 2**32).any():
            return False
        finite = self.width - self.counts.sum(axis=1)
        low, high = self.extremes.T
        extremes = np.where(finite == 0, (low == np.inf) & (high == -np.inf), (-np.inf < low) & (low <= high))
        sums = np.isfinite(self.sums) & np.isfinite(self.sketches).all(axis=1)
        return bool(
            ((finite >= 0) & extremes & (high < np.inf) & (self.squares >= 0) & (sums | (self.squares == np.inf))).all()
        )


def concatenate(parts: Sequence[RowSummaries]) -> RowSummaries:
    """Return the rows of one or more, one behind the other."""
    return parts[0] if len(parts) == 1 else RowSummaries(parts[0].width, np.concatenate([each.table for each in parts]))


def row_size(sketch: bool) -> int:
    """Return how many numbers are stored of a row."""
    return HEAD + BUCKETS * sketch


def named_row_width(shape: Sequence[int], rows: int) -> int | None:
    """Return how many elements each of `rows` named rows of a tensor has; None where no first dimensions are they."""
    if not rows or not math.prod(shape):
        return None
    width = math.prod(shape)
    for size in shape:
        if width * rows == math.prod(shape):
            break
        width //= size
    return width if width * rows == math.prod(shape) else None


@lru_cache(maxsize=64)
def row_words(width: int) -> npt.NDArray[np.uint64]:
    """Return the random words of rows of `width` values, shape (ceil(width / 1024), 32)."""
    blocks = -(-width // _PLACES)
    return np.random.Philox(key=_KEY).random_raw(blocks * 32).reshape(blocks, 32)


@lru_cache(maxsize=16)
def projection(width: int) -> tuple[npt.NDArray[np.intp], _Float64]:
    """Return the order in which the values of a row, with zeros behind it, come into lines of buckets, and their signs.

    Both have the shape (lines, 32): the sketch is the sum over lines of signs x values[order].
    """
    words = row_words(width)
    shifts = words[:, 16:].astype("<u8").view("<u4").reshape(-1, 1) % BUCKETS
    minus = words[:, :16, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    lines = -(-width // BUCKETS)
    shifts, signs = shifts[:lines].astype(np.intp), 1.0 - 2.0 * minus.reshape(-1)
    order = BUCKETS * np.arange(lines)[:, None] + (np.arange(BUCKETS) - shifts) % BUCKETS
    return order, signs[order]

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
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.element_values import components_of, decode

SKETCH_SIZE = 1024
ROW_SKETCH_SIZE = 16
MAX_ROW_SKETCHES = 256
MAX_ROWS = 4096
"""Tensors of more rows than this are summed by groups of rows."""

_VERSION = 1
_HEAD = 19  # numbers before the norms by row
_MOST = _HEAD + MAX_ROWS + SKETCH_SIZE + MAX_ROW_SKETCHES * ROW_SKETCH_SIZE
_KEY = 0xAC1C3B
_WINDOW_LINES = 64
_WINDOW = (
    _WINDOW_LINES * SKETCH_SIZE
)  # Values. Their float64 take 512 KiB, and stay in the cache from one sum to the next.

_Float64 = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]

_SIGNS_OF_BYTE: _Float64 = np.array([[-1.0 if byte >> bit & 1 else 1.0 for bit in range(8)] for byte in range(256)])


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
    """blake2b, 16 bytes: of the dense stored bits; of integers and bool as int64, whatever their width."""
    places: bytes
    """blake2b, 8 bytes: of the positions and kinds of non-finite values; zeros when there are none."""
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
        counts = (_VERSION, self.n, self.nan, self.posinf, self.neginf)
        sums = (self.sum, self.sum_squares, self.min, self.max)
        digests = np.frombuffer(self.digest + self.places, "<u4").tolist()
        sizes = (self.row_group, self.row_squares.size, self.sketch.size, len(self.row_sketches))
        head = np.array([*counts, *sums, *digests, *sizes], np.float64)
        return np.concatenate([head, self.row_squares, self.sketch, self.row_sketches.reshape(-1)])

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
        sketched = _rows_per_sketch(self.row_squares.size) if self.sketch.size else 0
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


def row_groups(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the number of consecutive rows that are summed together, a power of two, and the number of groups."""
    rows = math.prod(shape[:-1]) if math.prod(shape) else 0
    group = 1
    while -(-rows // group) > MAX_ROWS:
        group *= 2
    return group, -(-rows // group)


def packed_size(shape: tuple[int, ...], sketch: bool) -> int:
    """Return the bytes of a packed summary, which for a small tensor may be more than the tensor's own."""
    rows = row_groups(shape)[1]
    sketches = SKETCH_SIZE + -(-rows // _rows_per_sketch(rows)) * ROW_SKETCH_SIZE if sketch else 0
    return 8 * (_HEAD + rows + sketches)


def _rows_per_sketch(rows: int) -> int:
    """Return the number of consecutive row groups that share one projection: a power of two."""
    together = 1
    while -(-rows // together) > MAX_ROW_SKETCHES:
        together *= 2
    return together


def _keep(start: int, stop: int) -> None:
    """Release nothing: for arrays that are not mapped."""


def summarise(
    bits: _Bytes,
    dtype: str,
    shape: tuple[int, ...],
    *,
    sketch: bool,
    release: Callable[[int, int], None] = _keep,
) -> TensorSummary:
    """Return the summary of a tensor stored as the flat bytes `bits`, dense in C order; ValueError on a wrong length.

    Reads 65,536 values at a time and calls `release(start, stop)` when the elements start <= i < stop have been read;
    its own work space is about 3 MiB for a tensor of any size.
    """
    components = components_of(dtype)
    itemsize = DTYPES[dtype].itemsize // components
    n = math.prod(shape) * components
    if bits.size != n * itemsize:
        raise ValueError(f"{bits.size} bytes are not a {dtype} tensor of shape {shape}")
    group, rows = row_groups(shape)
    stretch = group * components * (shape[-1] if shape else 1)
    moments = _Moments(stretch, rows, DTYPES[dtype].lowest)
    numbers = np.empty(min(n, _WINDOW))
    together = _rows_per_sketch(rows)
    projection = _Projection(stretch * together, -(-rows // together)) if sketch else None
    digest = blake2b(digest_size=16)
    for start in range(0, n, _WINDOW):
        stop = min(start + _WINDOW, n)
        window = bits[start * itemsize : stop * itemsize]
        digest.update(_canonical(window, dtype))
        with np.errstate(all="ignore"):  # values near float64's limit
            values = numbers[: stop - start]
            values[:] = decode(window, dtype)
            moments.add(values)
            if projection:
                projection.add(values)
        release(start // components, stop // components)
    return TensorSummary(
        n=n,
        nan=moments.nan,
        posinf=moments.posinf,
        neginf=moments.neginf,
        sum=moments.sum,
        sum_squares=float(moments.row_squares.sum()),
        min=moments.min,
        max=moments.max,
        digest=digest.digest(),
        places=moments.places,
        row_group=group,
        row_squares=moments.row_squares,
        sketch=projection.sketch if projection else np.empty(0),
        row_sketches=projection.row_sketches if projection else np.empty((0, ROW_SKETCH_SIZE)),
    )


def _canonical(bits: _Bytes, dtype: str) -> bytes:
    """Return the bytes of which the digest is taken."""
    if DTYPES[dtype].kind not in (Kind.INT, Kind.BOOL):
        return bits.tobytes()
    integers = np.frombuffer(bits.tobytes(), DTYPES[dtype].memory)
    beyond = dtype == "uint64" and bool((integers >> np.uint64(63)).any())
    return integers.astype("<i8").tobytes() + (b"beyond int64" if beyond else b"")


class _Moments:
    """Counts, sums and extremes of a flat tensor that arrives in windows, and sums of squares by stretches of it."""

    def __init__(self, stretch: int, rows: int, lowest: float) -> None:
        self._lowest = lowest
        self.nan = self.posinf = self.neginf = 0
        self.sum = 0.0
        self.min, self.max = math.inf, -math.inf
        self.row_squares = np.zeros(rows)
        self._stretch = stretch
        self._read = 0
        self._squares = np.empty(_WINDOW)
        self._places = blake2b(digest_size=8)

    @property
    def places(self) -> bytes:
        """The digest of the positions and kinds of non-finite values."""
        return self._places.digest() if self.nan + self.posinf + self.neginf else bytes(8)

    def add(self, values: _Float64) -> None:
        """Add the next window, of 1 to _WINDOW values; non-finite values in it are replaced by zeros.

        The lowest values of a type count as -inf, because masks use them in its place.
        """
        finite = np.isfinite(values)
        if np.fmin.reduce(values) <= self._lowest:
            values[values <= self._lowest] = -np.inf
            finite = np.isfinite(values)
        if finite.all():
            self._add_extremes(values)
        else:
            self.nan += int(np.isnan(values).sum())
            self.posinf += int((values == np.inf).sum())
            self.neginf += int((values == -np.inf).sum())
            odd = np.flatnonzero(~finite)
            self._places.update((odd + self._read).astype("<i8").tobytes())
            self._places.update(np.where(np.isnan(values[odd]), 0, np.sign(values[odd])).astype("i1").tobytes())
            self._add_extremes(values[finite])
            values[~finite] = 0.0
        self.sum += float(values.sum())
        first = self._read // self._stretch
        starts = np.arange(first * self._stretch, self._read + values.size, self._stretch) - self._read
        starts[0] = 0
        squares = np.square(values, out=self._squares[: values.size])
        self.row_squares[first : first + starts.size] += np.add.reduceat(squares, starts)
        self._read += values.size

    def _add_extremes(self, finite: _Float64) -> None:
        if finite.size:
            self.min = min(self.min, float(finite.min()))
            self.max = max(self.max, float(finite.max()))


class _Projection:
    """The sketches of a flat tensor that arrives in windows: see the module's docstring."""

    def __init__(self, stretch: int, groups: int) -> None:
        self.sketch = np.zeros(SKETCH_SIZE)
        self.row_sketches = np.zeros((groups, ROW_SKETCH_SIZE))
        self._stretch = stretch
        self._read = 0
        self._words = np.random.Philox(key=_KEY)
        self._signs = np.empty((_WINDOW // 8, 8))

    def add(self, values: _Float64) -> None:
        """Add the next window: _WINDOW finite values; the last window may have fewer."""
        sign_words = self._words.random_raw(_WINDOW // 64).astype("<u8").view(np.uint8)
        shifts = self._words.random_raw(_WINDOW_LINES) % np.uint64(SKETCH_SIZE)
        np.take(_SIGNS_OF_BYTE, sign_words, axis=0, out=self._signs, mode="clip")  # "raise" takes twice as long
        signed = self._signs.reshape(-1)
        signed[: values.size] *= values
        signed[values.size :] = 0.0
        lines = signed.reshape(-1, SKETCH_SIZE)[: -(-values.size // SKETCH_SIZE)]
        unrolled = np.zeros(2 * SKETCH_SIZE)
        for line, shift in zip(lines, shifts.tolist(), strict=False):
            unrolled[shift : shift + SKETCH_SIZE] += line
        self.sketch += unrolled[:SKETCH_SIZE] + unrolled[SKETCH_SIZE:]
        start, end = self._read, self._read + values.size
        for group in range(start // self._stretch, -(-end // self._stretch)):
            first, stop = (max(start, group * self._stretch) - start, min(end, (group + 1) * self._stretch) - start)
            before = first % ROW_SKETCH_SIZE  # a window begins at a multiple of it
            padded = np.zeros(-(-(before + stop - first) // ROW_SKETCH_SIZE) * ROW_SKETCH_SIZE)
            padded[before : before + stop - first] = signed[first:stop]
            self.row_sketches[group] += padded.reshape(-1, ROW_SKETCH_SIZE).sum(0)
        self._read = end

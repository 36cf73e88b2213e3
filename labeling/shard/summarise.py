"""Summaries of tensors in host memory: by the kernels in C where their library is built, else by numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.digest import BEYOND, WORDS, digests, keys, mixed, places_digest, words_of
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.element_values import components_of, decode
from aclcmp.labeling.shard.row_summaries import HEAD, VERSION, RowSummaries, projection, row_size, row_words
from aclcmp.labeling.shard.summary_kernel import Sums, add_to_sums, fill_row_summaries, summary_library
from aclcmp.labeling.shard.tensor_summary import (
    ROW_SKETCH_SIZE,
    SKETCH_SIZE,
    TensorSummary,
    row_groups,
    rows_per_sketch,
)

_KEY = 0xAC1C3B
WINDOW_LINES = 64
WINDOW = WINDOW_LINES * SKETCH_SIZE
"""Values for which random words come together: WINDOW of signs, then WINDOW_LINES shifts."""
AT_ONCE = 4 * WINDOW
"""Values that are read at a time. Their float64, in the fallback, take 2 MiB."""

_Float64 = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]

_SIGNS_OF_BYTE: _Float64 = np.array([[-1.0 if byte >> bit & 1 else 1.0 for bit in range(8)] for byte in range(256)])


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

    Reads 262,144 values at a time and calls `release(start, stop)` when the elements start <= i < stop have been read;
    its own work space is some MiB for a tensor of any size.
    """
    components = components_of(dtype)
    itemsize = DTYPES[dtype].itemsize // components
    n = math.prod(shape) * components
    if bits.size != n * itemsize:
        raise ValueError(f"{bits.size} bytes are not a {dtype} tensor of shape {shape}")
    group, rows = row_groups(shape)
    stretch = group * components * (shape[-1] if shape else 1)
    adder = (_Numpy if summary_library() is None else _Kernel)(dtype, stretch, rows, sketch)
    for start in range(0, n, AT_ONCE):
        stop = min(start + AT_ONCE, n)
        adder.add(bits[start * itemsize : stop * itemsize], start, stop)
        release(start // components, stop // components)
    return adder.summary(n, group)


def summarise_rows(bits: _Bytes, dtype: str, rows: int, *, sketch: bool) -> RowSummaries:
    """Return the summary of each of `rows` rows stored as the flat bytes `bits`, dense in C order.

    The fallback's work space is some MiB, or 20 times the size of one row. Raises ValueError on a wrong length.
    """
    components = components_of(dtype)
    itemsize = DTYPES[dtype].itemsize // components
    width, rest = divmod(bits.size, rows * itemsize)
    if rest or width % components or not width:
        raise ValueError(f"{bits.size} bytes are not {rows} rows of {dtype}")
    table = np.empty((rows, row_size(sketch)))
    library = summary_library()
    if library is None:
        _fill_rows(bits.reshape(rows, -1), dtype, width, table)
    else:
        fill_row_summaries(library, bits, dtype, width, row_words(width) if sketch else None, table)
    table[:, 0] = VERSION
    return RowSummaries(width, table)


def _fill_rows(bits: _Bytes, dtype: str, width: int, table: _Float64) -> None:
    """Write what the kernel writes by plain numpy; `bits` has the shape (rows, bytes)."""
    step = max(AT_ONCE // width, 1)
    for start in range(0, len(table), step):
        window, out = bits[start : start + step], table[start : start + step]
        digest, beyond = _digests(window, dtype)
        digest[beyond, 0] += mixed(np.array([BEYOND], np.uint64))
        with np.errstate(all="ignore"):  # values near float64's limit
            values = decode(window.reshape(-1), dtype).astype(np.float64).reshape(-1, width)
            values[values <= DTYPES[dtype].lowest] = -np.inf
            kinds = np.isnan(values), values == np.inf, values == -np.inf
            odd = kinds[0] | kinds[1] | kinds[2]
            places = np.zeros(len(out), np.uint64)
            for kind, which in enumerate(kinds):
                at, place = np.nonzero(which)
                np.add.at(places, at, places_digest(4 * place + kind))
                out[:, 1 + kind] = which.sum(axis=1)
            out[:, 6] = np.where(odd, np.inf, values).min(axis=1)
            out[:, 7] = np.where(odd, -np.inf, values).max(axis=1)
            values[odd] = 0.0
            out[:, 4], out[:, 5] = values.sum(axis=1), np.square(values).sum(axis=1)
            out[:, 8:HEAD] = np.ascontiguousarray(np.column_stack([digest, places]), "<u8").view("<u4")
            if out.shape[1] > HEAD:
                order, signs = projection(width)
                padded = np.pad(values, ((0, 0), (0, order.size - width)))
                out[:, HEAD:] = (padded[:, order] * signs).sum(axis=1)


def _digests(bits: _Bytes, dtype: str, block: int = 0) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return the digest of each row of bytes, from block number `block` on, and which rows have values beyond int64."""
    if DTYPES[dtype].kind not in (Kind.INT, Kind.BOOL):
        return digests(words_of(bits), block), np.zeros(len(bits), np.bool_)
    integers = np.ascontiguousarray(bits).view(DTYPES[dtype].memory).astype(np.int64).view(np.uint64)
    highest = np.bitwise_or.reduce(integers, axis=1) >> np.uint64(63)
    return digests(integers, block), (highest > 0) & (dtype == "uint64")


@lru_cache(maxsize=16)
def random_words(number: int) -> npt.NDArray[np.uint64]:
    """Return the random words of AT_ONCE values: those from `number` x AT_ONCE on."""
    words = np.random.Philox(key=_KEY)
    each = (WINDOW // 64 + WINDOW_LINES) * (AT_ONCE // WINDOW)
    words.advance(number * each // 4)  # its steps give 4 words
    return words.random_raw(each)


class _Adder:
    """A summary to which a flat tensor is added in parts of AT_ONCE values."""

    def __init__(self, dtype: str, stretch: int, rows: int, sketch: bool) -> None:
        self._dtype = dtype
        self._stretch = stretch
        self._together = rows_per_sketch(rows)
        self._row_squares = np.zeros(rows)
        self._sketch = np.zeros(SKETCH_SIZE if sketch else 0)
        self._row_sketches = np.zeros((-(-rows // self._together) if sketch else 0, ROW_SKETCH_SIZE))
        self._sums = Sums(0.0, math.inf, -math.inf, DTYPES[dtype].lowest)
        self._sums.stretch, self._sums.together = stretch, self._together
        self._sums.keys = keys().ctypes.data

    def summary(self, n: int, group: int) -> TensorSummary:
        """Return the summary."""
        nan, posinf, neginf = self._sums.counts
        digest = np.array(self._sums.digest, "<u8")
        if self._sums.is_beyond:
            digest[:1] += mixed(np.array([BEYOND], np.uint64))
        return TensorSummary(
            n=n,
            nan=nan,
            posinf=posinf,
            neginf=neginf,
            sum=self._sums.sum,
            sum_squares=float(self._row_squares.sum()),
            min=self._sums.min,
            max=self._sums.max,
            digest=digest.tobytes(),
            places=np.array(self._sums.places, "<u8").tobytes(),
            row_group=group,
            row_squares=self._row_squares,
            sketch=self._sketch,
            row_sketches=self._row_sketches,
        )


class _Kernel(_Adder):
    """The kernel in C."""

    def __init__(self, dtype: str, stretch: int, rows: int, sketch: bool) -> None:
        super().__init__(dtype, stretch, rows, sketch)
        self._sums.row_squares = self._row_squares.ctypes.data
        if sketch:
            self._sums.sketch, self._sums.row_sketches = self._sketch.ctypes.data, self._row_sketches.ctypes.data

    def add(self, window: _Bytes, start: int, stop: int) -> None:
        """Add the values start <= i < stop, of which `window` are the bytes."""
        words = random_words(start // AT_ONCE) if self._sketch.size else None
        add_to_sums(summary_library(), window, self._dtype, start, stop, words, self._sums)


class _Numpy(_Adder):
    """Plain numpy."""

    def add(self, window: _Bytes, start: int, stop: int) -> None:
        """Add the values start <= i < stop, of which `window` are the bytes."""
        nbytes = 8 if DTYPES[self._dtype].kind in (Kind.INT, Kind.BOOL) else window.size // (stop - start)
        (lanes,), (beyond,) = _digests(window.reshape(1, -1), self._dtype, start * nbytes // (8 * WORDS))
        for lane, digest in enumerate(lanes.tolist()):
            self._sums.digest[lane] += digest
        self._sums.is_beyond |= bool(beyond)
        with np.errstate(all="ignore"):  # values near float64's limit
            values = decode(window, self._dtype).astype(np.float64)
            self._add_moments(values, start)
            if self._sketch.size:
                self._add_projections(values, start)

    def _add_moments(self, values: _Float64, start: int) -> None:
        """Add values; those that are not finite are replaced by zeros.

        The lowest values of a type count as -inf, because masks use them in its place.
        """
        sums = self._sums
        values[values <= sums.lowest] = -np.inf
        finite = np.isfinite(values)
        usual = values
        if not finite.all():
            at = np.flatnonzero(~finite)
            kinds = np.where(np.isnan(values[at]), 0, np.where(values[at] > 0, 1, 2))
            for kind, number in enumerate(np.bincount(kinds, minlength=3).tolist()):
                sums.counts[kind] += number
            self._sums.places += int(places_digest(4 * (at + start) + kinds).sum(dtype=np.uint64))
            usual = values[finite]
            values[~finite] = 0.0
        if usual.size:
            sums.min, sums.max = min(sums.min, float(usual.min())), max(sums.max, float(usual.max()))
        sums.sum += float(values.sum())
        first = start // self._stretch
        starts = np.arange(first * self._stretch, start + values.size, self._stretch) - start
        starts[0] = 0
        self._row_squares[first : first + starts.size] += np.add.reduceat(np.square(values), starts)

    def _add_projections(self, values: _Float64, start: int) -> None:
        """Add finite values: see the docstring of tensor_summary.py."""
        words = random_words(start // AT_ONCE).reshape(-1, WINDOW // 64 + WINDOW_LINES)
        sign_words = np.ascontiguousarray(words[:, : WINDOW // 64]).astype("<u8").view(np.uint8)
        shifts = words[:, WINDOW // 64 :].reshape(-1) % np.uint64(SKETCH_SIZE)
        signed = _SIGNS_OF_BYTE.take(sign_words, axis=0).reshape(-1)
        signed[: values.size] *= values
        signed[values.size :] = 0.0
        lines = signed.reshape(-1, SKETCH_SIZE)[: -(-values.size // SKETCH_SIZE)]
        unrolled = np.zeros(2 * SKETCH_SIZE)
        for line, shift in zip(lines, shifts.tolist(), strict=False):
            unrolled[shift : shift + SKETCH_SIZE] += line
        self._sketch += unrolled[:SKETCH_SIZE] + unrolled[SKETCH_SIZE:]
        end, wide = start + values.size, self._stretch * self._together
        for group in range(start // wide, -(-end // wide)):
            first, stop = max(start, group * wide) - start, min(end, (group + 1) * wide) - start
            before = first % ROW_SKETCH_SIZE  # a part begins at a multiple of it
            padded = np.zeros(-(-(before + stop - first) // ROW_SKETCH_SIZE) * ROW_SKETCH_SIZE)
            padded[before : before + stop - first] = signed[first:stop]
            self._row_sketches[group] += padded.reshape(-1, ROW_SKETCH_SIZE).sum(0)

"""Summaries of rows against plain numpy, for every element type; that they do not depend on the batch; and damage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.row_summaries import BUCKETS, HEAD, RowSummaries, named_row_width, row_size, row_words
from aclcmp.labeling.shard.summarise import summarise_rows
from tests.compare.reference import values
from tests.compare.test_pair import FLAVOURS, random_bits
from tests.labeling.shard.test_digest import naive_digest, naive_mixed
from tests.labeling.shard.test_tensor_summary import assert_sum, flat_bytes, means

__all__ = ["means"]
SHAPES = ((1, 1), (5, 3), (4, 32), (7, 33), (3, 1024), (2, 3001), (600, 5), (2, 3, 40), (3, 70_000))


def summaries_of(array: np.ndarray, sketch: bool = True) -> RowSummaries:
    return summarise_rows(flat_bytes(array), array.dtype.name, len(array), sketch=sketch)


def naive_sketch(x: np.ndarray) -> np.ndarray:
    """The projection of a row as its documentation reads."""
    words, sketch = np.random.Philox(key=0xAC1C3D), np.zeros(32)
    for first in range(0, x.size, 1024):
        block = np.append(x[first : first + 1024], np.zeros(max(first + 1024 - x.size, 0)))
        signs = [int(word) >> bit & 1 for word in words.random_raw(16) for bit in range(64)]
        shifts = [int(word) >> half & 31 for word in words.random_raw(16) for half in (0, 32)]
        for line, shift in enumerate(shifts):
            for place in range(32):
                i = 32 * line + place
                sketch[(place + shift) % 32] += -block[i] if signs[i] else block[i]
    return sketch


@pytest.mark.usefixtures("means")
@settings(max_examples=80)
@given(
    st.sampled_from(list(DTYPES)),
    st.sampled_from(SHAPES),
    st.sampled_from(FLAVOURS),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_agrees_with_plain_numpy(name: str, shape: tuple[int, ...], flavour: str, seed: int, sketch: bool) -> None:
    bits = random_bits(np.random.default_rng(seed), name, shape, flavour)
    found = summarise_rows(flat_bytes(bits), name, shape[0], sketch=sketch)
    exact = DTYPES[name].kind in (Kind.INT, Kind.BOOL)
    all_values = values(bits, name).reshape(shape[0], -1)
    assert found.table.shape == (shape[0], row_size(sketch)) and found.n == all_values.size
    for number in {0, shape[0] // 2, shape[0] - 1}:
        row = all_values[number]
        row = np.where(row <= DTYPES[name].lowest, -np.inf, row)
        kinds = np.where(np.isnan(row), 0, np.where(row == np.inf, 1, np.where(row == -np.inf, 2, -1)))
        assert found.counts[number].tolist() == [(kinds == kind).sum() for kind in range(3)]
        finite = row[kinds < 0]
        assert found.extremes[number].tolist() == [finite.min(initial=np.inf), finite.max(initial=-np.inf)]
        assert_sum(float(found.sums[number]), math.fsum(finite), float(abs(finite).sum()))
        assert_sum(float(found.squares[number]), math.fsum(finite * finite), float((finite * finite).sum()))
        places = sum(naive_mixed(4 * int(i) + int(kinds[i])) for i in np.flatnonzero(kinds >= 0)) % 2**64
        assert found.places[number].astype("<u4").tobytes() == places.to_bytes(8, "little")
        if not (exact and row.max() >= 2**63):
            stored = bits[number].astype("<i8") if exact else np.ascontiguousarray(bits[number])
            assert found.digests[number].astype("<u4").tobytes() == naive_digest(stored.tobytes())
    unpacked = RowSummaries.unpack(found.pack(), shape[0], found.width)
    np.testing.assert_array_equal(unpacked.table, found.table)


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("width", [1, 31, 32, 33, 576, 1024, 1025, 5000])
def test_the_projection_is_the_documented_one(width: int) -> None:
    x = np.random.default_rng(width).integers(-100, 100, (3, width)).astype(np.float64)  # sums of these are exact
    np.testing.assert_array_equal(summaries_of(x).sketches, [naive_sketch(row) for row in x])


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8"])
@pytest.mark.parametrize("width", [5, 576, 2049])
def test_a_row_is_the_same_in_any_batch(dtype: str, width: int) -> None:
    """Bit by bit, wherever it lies in memory."""
    x = (50 * np.random.default_rng(0).standard_normal((9, width))).astype(dtype)
    order = np.random.default_rng(1).permutation(9)
    whole = summaries_of(x).table
    np.testing.assert_array_equal(summaries_of(x[order]).table, whole[order])
    np.testing.assert_array_equal(np.concatenate([summaries_of(row[None]).table for row in x]), whole)


@pytest.mark.parametrize("name", DTYPES)
def test_the_kernel_and_numpy_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for flavour in FLAVOURS:
        for shape in ((9, 33), (40, 576), (3, 2500)):
            bits = flat_bytes(random_bits(np.random.default_rng(5), name, shape, flavour))
            found = summarise_rows(bits, name, shape[0], sketch=True)
            with monkeypatch.context() as patch:
                patch.setattr("aclcmp.labeling.shard.summarise.summary_library", lambda: None)
                assert_alike(summarise_rows(bits, name, shape[0], sketch=True), found)


def assert_alike(found: RowSummaries, expected: RowSummaries) -> None:
    """Counts, extremes and digests are equal, sums up to rounding."""
    exact = [0, 1, 2, 3, *range(6, HEAD)]
    np.testing.assert_array_equal(found.table[:, exact], expected.table[:, exact])
    norms = np.sqrt(expected.squares)[:, None]
    with np.errstate(all="ignore"):
        for name in ("sums", "squares", "sketches"):
            first, second = (getattr(each, name).reshape(len(norms), -1) for each in (found, expected))
            scale = np.maximum(abs(second), 0 if name == "squares" else norms * np.sqrt(expected.width))
            same = (first == second) | (abs(first - second) <= 1e-12 * scale)
            assert (same | (np.isnan(first) & np.isnan(second)) | np.isinf(norms)).all(), name


def test_the_stream_of_signs_and_shifts_is_frozen() -> None:
    """Runs of different versions are compared: if this fails, the version of summaries must change."""
    assert row_words(5).ravel()[:2].tolist() == [8236108331394097809, 16507332071056929487]
    assert row_words(1025).shape == (2, 32) and (HEAD, BUCKETS) == (14, 32)


@pytest.mark.parametrize(
    ("shape", "rows", "width"),
    [
        ((5, 7), 5, 7),
        ((1, 5, 7), 5, 7),
        ((2, 3, 4), 6, 4),
        ((2, 3, 4), 2, 12),
        ((5,), 5, 1),
        ((1, 1, 9), 1, 9),
        ((5, 7), 7, None),
        ((5, 7), 0, None),
        ((0, 7), 0, None),
        ((5, 0), 5, None),
        ((), 1, 1),
        ((6, 4), 12, None),
    ],
)
def test_rows_are_the_first_dimensions(shape: tuple[int, ...], rows: int, width: int | None) -> None:
    assert named_row_width(shape, rows) == width


@pytest.mark.parametrize(("nbytes", "rows"), [(7, 1), (12, 2), (0, 1), (8, 0), (24, 5)])
def test_refuses_bytes_of_another_length(nbytes: int, rows: int) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        summarise_rows(np.zeros(nbytes, np.uint8), "float32", rows, sketch=False)


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 3), (0, 1002), (0, math.nan), (1, -1), (1, 0.5), (1, 6), (2, math.inf), (4, math.nan), (5, -1.0),
     (5, math.nan), (6, 99.0), (6, math.nan), (6, -math.inf), (7, math.inf), (8, 2**32), (13, -1), (13, 0.5),
     (14, math.inf), (45, math.nan)],
)  # fmt: skip
def test_refuses_damaged_numbers(column: int, value: float) -> None:
    found = summaries_of(np.arange(15.0).reshape(3, 5))
    found.table[1, column] = value
    with pytest.raises(ShardFormatError):
        RowSummaries.unpack(found.pack(), 3, 5)


def test_refuses_other_sizes() -> None:
    packed = summaries_of(np.arange(15.0).reshape(3, 5)).pack()
    for spoilt, rows in ((packed[:-8], 3), (packed, 2), (packed, 4), (packed[:0], 3), (packed[:-1], 3), (packed, 0)):
        with pytest.raises(ShardFormatError):
            RowSummaries.unpack(spoilt, rows, 5)


@settings(max_examples=200)
@given(
    st.lists(st.floats() | st.integers(0, 5) | st.just(1003), min_size=14, max_size=14),
    st.lists(st.integers(0, 13), max_size=3),
)
def test_garbage_is_refused_or_sound(numbers: list[float], kept: list[int]) -> None:
    table = np.array([numbers], np.float64)
    sound = summaries_of(np.arange(5.0)[None], sketch=False).table
    table[:, [0, *kept]] = sound[:, [0, *kept]]
    try:
        found = RowSummaries.unpack(table.reshape(-1).view(np.uint8), 1, 5)
    except ShardFormatError:
        return
    assert (found.squares >= 0).all() and (found.counts.sum(axis=1) <= 5).all()

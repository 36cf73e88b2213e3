"""Summaries against plain float64 numpy, for every element type, and what garbage makes of them."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.element_values import FLOAT8, components_of, decode
from aclcmp.labeling.shard.summarise import summarise
from aclcmp.labeling.shard.summary_kernel import summary_library
from aclcmp.labeling.shard.tensor_summary import (
    MAX_ROW_SKETCHES,
    MAX_ROWS,
    SKETCH_SIZE,
    TensorSummary,
    packed_size,
    row_groups,
)
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from tests.compare.reference import values
from tests.compare.test_pair import FLAVOURS, random_bits
from tests.labeling.shard.test_digest import naive_digest

SHAPES = ((), (1,), (0,), (7,), (3, 5), (2, 0, 4), (0, 3), (2, 3, 4), (600, 300), (9000, 3), (5000, 1), (3, 70000))


def flat_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def summary_of(array: np.ndarray, sketch: bool = True) -> TensorSummary:
    return summarise(flat_bytes(array), array.dtype.name, array.shape, sketch=sketch)


def naive_sketch(x: np.ndarray) -> np.ndarray:
    """The projection as its documentation reads, one line at a time."""
    words, sketch = np.random.Philox(key=0xAC1C3B), np.zeros(1024)
    lines = np.append(x, np.zeros(-x.size % 1024)).reshape(-1, 1024)
    for first in range(0, len(lines), 64):
        sign_words = [int(word) for word in words.random_raw(64 * 16)]
        shifts = [int(word) % 1024 for word in words.random_raw(64)]
        for number, line in enumerate(lines[first : first + 64]):
            minus = [word >> bit & 1 for word in sign_words[16 * number : 16 * number + 16] for bit in range(64)]
            sketch += np.roll(np.where(minus, -line, line), shifts[number])
    return sketch


def assert_sum(found: float, expected: float, scale: float) -> None:
    if not (found == expected or (math.isnan(found) and math.isnan(expected))):
        assert abs(found - expected) <= 1e-12 * scale, f"{found}, expected {expected}, scale {scale}"


@pytest.mark.parametrize("name", DTYPES)
def test_decodes_every_type_as_the_reference_does(name: str) -> None:
    rng = np.random.default_rng(1)
    for flavour in FLAVOURS:
        bits = random_bits(rng, name, (515,), flavour)
        found = decode(flat_bytes(bits), name)
        with np.errstate(invalid="ignore"):  # signalling NaN
            np.testing.assert_array_equal(found.astype(np.float64), values(bits, name).ravel())
        assert found.size == 515 * components_of(name)


@pytest.mark.parametrize("name", [*FLOAT8, "bfloat16", "float16"])
def test_decodes_all_bit_patterns(name: str) -> None:
    itemsize = DTYPES[name].itemsize
    bits = np.arange(2 ** (8 * itemsize), dtype=f"u{itemsize}")
    with np.errstate(invalid="ignore"):
        expected = bits.view(np.float16 if name == "float16" else getattr(ml_dtypes, name)).astype(np.float32)
    found = decode(bits.view(np.uint8), name)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found)[found == found], np.signbit(expected)[found == found])


@pytest.fixture(params=["kernel", "numpy"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Summaries come from the kernels in C, or from numpy as where none are built."""
    load_library()
    summary_library.cache_clear()
    assert summary_library() is not None
    if request.param == "numpy":
        monkeypatch.setattr("aclcmp.labeling.shard.summarise.summary_library", lambda: None)


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
    found = summarise(flat_bytes(bits), name, shape, sketch=sketch)
    x = values(bits, name)
    x = np.where(x <= DTYPES[name].lowest, -np.inf, x)
    finite = x[np.isfinite(x)]
    assert (found.n, found.nan, found.posinf, found.neginf) == (
        x.size,
        np.isnan(x).sum(),
        (x == np.inf).sum(),
        (x == -np.inf).sum(),
    )
    assert found.n_nonfinite == x.size - finite.size
    assert (found.min, found.max) == (finite.min(initial=np.inf), finite.max(initial=-np.inf))
    exact = DTYPES[name].kind in (Kind.INT, Kind.BOOL)
    if not (exact and x.size and x.max() >= 2**63):
        hashed = bits.astype("<i8") if exact else bits
        assert found.digest == naive_digest(hashed.tobytes())
    assert_sum(found.sum, math.fsum(finite), float(abs(finite).sum()))
    assert_sum(found.sum_squares, math.fsum(finite * finite), float((finite * finite).sum()))

    group, rows = row_groups(shape)
    assert group == found.row_group and rows == found.row_squares.size <= MAX_ROWS
    if x.size:
        width = x.shape[-1] if shape else x.size
        squares = np.where(np.isfinite(x), x, 0.0).reshape(-1, width) ** 2
        assert -(-len(squares) // group) == rows
        expected = np.add.reduceat(squares.sum(1), np.arange(0, len(squares), group))
        np.testing.assert_allclose(found.row_squares, expected, rtol=1e-12)
    assert found.sketch.size == (SKETCH_SIZE if sketch else 0)
    assert len(found.row_sketches) <= MAX_ROW_SKETCHES and bool(len(found.row_sketches)) == (sketch and x.size > 0)
    assert_same(TensorSummary.unpack(found.pack()), found)
    assert_same(TensorSummary.unpack(found.pack().view(np.uint8)), found)
    assert found.pack().nbytes == packed_size(shape, sketch)
    assert found.fits(name, shape)
    assert not found.n or not found.fits(name, (*shape, 2))


def assert_same(found: TensorSummary, expected: TensorSummary) -> None:
    for name in TensorSummary.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 128 * 1024 + 5])
def test_the_projection_is_the_documented_one(size: int) -> None:
    x = np.random.default_rng(size).integers(-100, 100, size).astype(np.float64)  # sums of these are exact
    np.testing.assert_array_equal(summary_of(x).sketch, naive_sketch(x))


def test_the_stream_of_signs_and_shifts_is_frozen() -> None:
    """Runs of different versions are compared: if this fails, the version of summaries must change."""
    words = np.random.Philox(key=0xAC1C3B).random_raw(3)
    assert words.tolist() == [7487520522427247440, 10050681269678682963, 5960996465114334415]


def test_row_groups_keep_few_rows_and_need_no_memory() -> None:
    assert row_groups(()) == row_groups((9,)) == (1, 1)
    assert row_groups((4096, 2)) == (1, 4096)
    assert row_groups((4097, 2)) == (2, 2049)
    assert row_groups((10**6, 10**6, 10)) == (2**28, 3726)
    assert row_groups((10**9, 0)) == (1, 0)
    assert packed_size((10**6, 10**6, 10), True) == 8 * (19 + 3726 + SKETCH_SIZE + 233 * 16)


@pytest.mark.usefixtures("means")
def test_tells_what_has_been_read_and_reads_unaligned_bytes() -> None:
    x = np.arange(300_000, dtype=np.complex64)
    buffer = np.empty(x.nbytes + 1, np.uint8)
    buffer[1:] = flat_bytes(x)
    buffer.flags.writeable = False
    told: list[tuple[int, int]] = []
    found = summarise(buffer[1:], "complex64", (3, 100_000), sketch=True, release=lambda *span: told.append(span))
    assert_same(found, summary_of(x.reshape(3, 100_000)))
    assert told[0][0] == 0 and told[-1][1] == x.size and len(told) > 1
    assert all(before[1] == after[0] for before, after in itertools.pairwise(told))


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("values", [(1e308, 1e308, -1e308), (1e200, -1e200), (5e-324, 1e-200)])
def test_squares_beyond_float64_neither_warn_nor_break_the_format(values: tuple[float, ...]) -> None:
    found = summary_of(np.array(values * 70_000).reshape(-1, 2))
    assert_same(TensorSummary.unpack(found.pack()), found)


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("shape", [(5, 7), (300, 1000), (9000, 3), (3, 70000), (70000,), (2, 40000)])
def test_projections_by_row_add_up_to_what_they_say(shape: tuple[int, ...]) -> None:
    """With one element of the tensor at a time: its group of rows, its bucket, its sign."""
    rng, width = np.random.default_rng(0), shape[-1]
    rows = math.prod(shape[:-1])
    together = row_groups(shape)[0]
    while -(-rows // together) > MAX_ROW_SKETCHES:
        together *= 2
    for index in rng.integers(0, rows * width, 5).tolist():
        x = np.zeros(rows * width)
        x[index] = 3.0
        found = summary_of(x.reshape(shape))
        assert abs(found.row_sketches).sum() == 3.0
        assert abs(found.row_sketches[index // width // together, index % 16]) == 3.0
        assert np.sign(found.row_sketches.sum()) == np.sign(found.sketch.sum())


@pytest.mark.parametrize("name", DTYPES)
def test_the_kernel_and_numpy_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with the library is compared with one without: digests are equal, sums up to rounding."""
    load_library()
    summary_library.cache_clear()
    assert summary_library() is not None
    for flavour, shape in itertools.product(FLAVOURS, ((700, 500), (9000, 3), (3, 5))):
        bits = flat_bytes(random_bits(np.random.default_rng(5), name, shape, flavour))
        found = summarise(bits, name, shape, sketch=True)
        with monkeypatch.context() as patch:
            patch.setattr("aclcmp.labeling.shard.summarise.summary_library", lambda: None)
            expected = summarise(bits, name, shape, sketch=True)
        for field in ("n", "nan", "posinf", "neginf", "min", "max", "digest", "places", "row_group"):
            assert getattr(found, field) == getattr(expected, field), field
        scale = max(abs(expected.min), abs(expected.max)) if math.isfinite(expected.min) else 1.0
        with np.errstate(all="ignore"):
            for field in ("row_squares", "sketch", "row_sketches"):
                both = getattr(found, field), getattr(expected, field)
                atol = 1e-10 * scale if field != "row_squares" else 0.0
                np.testing.assert_allclose(*both, rtol=1e-12, atol=atol, err_msg=field)


@pytest.mark.usefixtures("means")
def test_non_finite_places_are_told_apart() -> None:
    x = np.zeros((300, 400))
    x[3, 5], x[200, 7] = np.nan, np.inf
    moved, other, same = x.copy(), x.copy(), x + 0.0
    moved[3, 5], moved[3, 6] = 0.0, np.nan
    other[200, 7] = -np.inf
    assert summary_of(x).places == summary_of(same, sketch=False).places != bytes(8)
    assert len({summary_of(each).places for each in (x, moved, other, np.zeros_like(x))}) == 4


def test_integers_of_any_width_have_one_digest() -> None:
    x = np.arange(-100, 100)
    assert summary_of(x).digest == summary_of(x.astype(np.int8)).digest
    assert summary_of(np.array([-1])).digest != summary_of(np.array([2**64 - 1], np.uint64)).digest


def test_refuses_bytes_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"7 bytes are not a float32 tensor of shape \(2,\)"):
        summarise(np.zeros(7, np.uint8), "float32", (2,), sketch=False)


HEAD = {
    "version": 0,
    "n": 1,
    "nan": 2,
    "sum": 5,
    "squares": 6,
    "min": 7,
    "max": 8,
    "digest": 9,
    "places": 13,
    "group": 15,
    "rows": 16,
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("version", 1),
        ("version", 2),
        ("version", 1003),
        ("version", math.nan),
        ("n", -1),
        ("n", 0.5),
        ("n", math.inf),
        ("n", 0),
        ("nan", 7),
        ("nan", 6),
        ("sum", math.nan),
        ("sum", math.inf),
        ("squares", -1.0),
        ("squares", math.nan),
        ("min", 99.0),
        ("min", math.nan),
        ("min", -math.inf),
        ("max", math.inf),
        ("digest", 2**32),
        ("places", 2**32),
        ("group", 0),
        ("group", 3),
        ("rows", 2),
        ("rows", 2**52),
        ("rows", math.nan),
    ],
)
def test_refuses_damaged_numbers(place: str, value: float) -> None:
    packed = summary_of(np.arange(6.0)).pack()
    packed[HEAD[place]] = value
    with pytest.raises(ShardFormatError):
        TensorSummary.unpack(packed)


def test_refuses_damage_behind_the_head() -> None:
    packed = summary_of(np.arange(6.0)).pack()
    for place, value in ((17, 1021), (18, 2), (19, -1.0), (19, math.nan), (20, math.inf), (-1, math.nan)):
        damaged = packed.copy()
        damaged[place] = value
        with pytest.raises(ShardFormatError):
            TensorSummary.unpack(damaged)
    for spoilt in (packed[:-1], np.append(packed, 0.0), packed[:18], packed.reshape(1, -1), packed.view(np.uint8)[1:]):
        with pytest.raises(ShardFormatError):
            TensorSummary.unpack(spoilt)
    with pytest.raises(ShardFormatError):
        TensorSummary.unpack(np.zeros(10**6, np.uint8))


@settings(max_examples=200)
@given(
    st.binary(max_size=400) | st.lists(st.floats() | st.integers(0, 5), max_size=40).map(lambda x: np.array(x, "<f8"))
)
def test_garbage_is_refused_or_sound(garbage: bytes | np.ndarray) -> None:
    try:
        found = TensorSummary.unpack(np.frombuffer(garbage, np.uint8) if isinstance(garbage, bytes) else garbage)
    except ShardFormatError:
        return
    assert found.n >= found.n_nonfinite >= 0 and (found.row_squares >= 0).all()


def test_every_kind_of_element_is_told_apart() -> None:
    assert {components_of(name) for name in DTYPES if DTYPES[name].kind is Kind.COMPLEX} == {2}
    assert {components_of(name) for name in DTYPES if DTYPES[name].kind is not Kind.COMPLEX} == {1}

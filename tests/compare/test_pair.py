"""The fused pass against plain float64 numpy, and parts against the whole."""

import functools
import warnings

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.stats import PairStats
from tests.compare.reference import assert_agree, reference_stats, values

COUNTS = ("n_over_1k", "n_over_5k", "n_over_tolerance")
FLAVOURS = ("ordinary", "any bits", "huge", "tiny", "equal", "few values", "offset")


def random_bits(rng: np.random.Generator, name: str, shape: tuple[int, ...], flavour: str) -> np.ndarray:
    """Make bits of a type in the manner of a flavour."""
    dtype = DTYPES[name]
    raw = np.frombuffer(rng.bytes(dtype.itemsize * int(np.prod(shape))), np.uint8)
    if dtype.kind is Kind.BOOL:
        return (raw & 1).view(dtype.memory).reshape(shape)
    if dtype.kind is Kind.INT:
        if flavour in ("any bits", "huge"):
            return raw.view(dtype.memory).reshape(shape)
        return rng.integers(0, 100, shape).astype(dtype.memory)
    if flavour == "any bits":
        if name in ("float64", "complex128"):  # keep squares within float64
            parts = raw.view(np.float64)
            raw = np.where(np.isfinite(parts), np.clip(parts, -1e140, 1e140), parts)
        return raw.view(dtype.memory).reshape(shape)
    count = int(np.prod(shape)) * (2 if dtype.kind is Kind.COMPLEX else 1)
    x = rng.standard_normal(count)
    if flavour == "huge":
        x *= 1e30
    elif flavour == "tiny":
        x *= 10.0 ** rng.choice([-45, -38, -30, -18, -5])
    elif flavour == "few values":
        x = rng.choice([0.0, -0.0, 1.0, -1.0, 1000.0, 999.0, 200.0, 201.0, 1e-10, 1.001, 1.005], count)
    elif flavour == "offset":
        x = x * 1e-3 + 1000
    return encode(x, name).reshape(shape)


def encode(x: np.ndarray, name: str) -> np.ndarray:
    """Round float64 to the bits of a float type."""
    dtype = DTYPES[name]
    with np.errstate(all="ignore"):
        if dtype.kind is Kind.COMPLEX:
            return x.astype(f"<f{dtype.itemsize // 2}").view(dtype.memory)
        if dtype.memory.kind == "f":
            return x.astype(dtype.memory)
        return x.astype(getattr(ml_dtypes, name)).view(dtype.memory)


def operand(bits: np.ndarray, name: str, region: Region) -> Operand:
    return Operand(np.ascontiguousarray(bits).reshape(-1), name, bits.shape, region)


def cut(bits: np.ndarray, region: Region) -> np.ndarray:
    return bits[region.slices].copy()


def check(x_bits: np.ndarray, y_bits: np.ndarray, x_name: str, y_name: str, found: PairStats) -> None:
    region = Region.whole(x_bits.shape)
    expected = reference_stats(x_bits, y_bits, x_name, y_name, x_bits.shape, region)
    x, y = values(x_bits, x_name), values(y_bits, y_name)
    with np.errstate(all="ignore"):
        finite = np.isfinite(x) & np.isfinite(y)
        assert_agree(found, expected, float(np.abs(x[finite]).sum()), float(np.abs(y[finite]).sum()))
    # Whether a position is over a limit is decided in float32 where that holds the values.
    most = reference_stats(x_bits, y_bits, x_name, y_name, x_bits.shape, region, 1 - 1e-6)
    least = reference_stats(x_bits, y_bits, x_name, y_name, x_bits.shape, region, 1 + 1e-6)
    for name in COUNTS:
        assert getattr(least, name) <= getattr(found, name) <= getattr(most, name), name


def whole_stats(x_bits: np.ndarray, y_bits: np.ndarray, x_name: str, y_name: str) -> PairStats:
    region = Region.whole(x_bits.shape)
    return pair_stats(
        operand(x_bits, x_name, region), operand(y_bits, y_name, region), x_bits.shape, Region.whole(x_bits.shape)
    )


@st.composite
def pairs(draw):
    """Draw (golden bits, actual bits, golden type, actual type, generator)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x_name = draw(st.sampled_from(sorted(DTYPES)))
    same_kind = sorted(name for name in DTYPES if DTYPES[name].kind is DTYPES[x_name].kind)
    y_name = draw(st.one_of(st.just(x_name), st.sampled_from(same_kind)))
    sizes = draw(st.sampled_from([(0, 5), (1, 5), (1, 13), (1, 40)]))
    shape = tuple(draw(st.lists(st.integers(*sizes), max_size=4 if sizes[1] < 40 else 3)))
    flavour = draw(st.sampled_from(FLAVOURS))
    x_bits = random_bits(rng, x_name, shape, flavour)
    y_bits = random_bits(rng, y_name, shape, flavour)
    if flavour == "equal" and x_name == y_name:
        y_bits = x_bits.copy()
    elif DTYPES[x_name].kind is Kind.FLOAT and draw(st.booleans()):
        # A small difference, as round-off makes it.
        noise = 1 + 10.0 ** rng.integers(-9, -1) * rng.standard_normal(shape)
        with np.errstate(all="ignore"):
            y_bits = encode((values(x_bits, x_name) * noise).ravel(), y_name).reshape(shape)
    if DTYPES[x_name].kind is Kind.FLOAT and draw(st.booleans()) and x_bits.size:
        specials = encode(np.array([np.nan, np.inf, -np.inf, 0.0]), x_name)
        x_bits = x_bits.copy()
        x_bits.reshape(-1)[rng.integers(0, x_bits.size, 1 + x_bits.size // 7)] = rng.choice(specials)
    return x_bits, y_bits, x_name, y_name, rng


def split(rng: np.random.Generator, region: Region, depth: int) -> list[Region]:
    """Cut a region at random along random dimensions."""
    axes = [axis for axis, size in enumerate(region.shape) if size > 1]
    if depth == 0 or not axes or rng.random() < 0.2:
        return [region]
    axis = int(rng.choice(axes))
    at = int(rng.integers(1, region.shape[axis]))
    low_shape, high_shape, high_start = list(region.shape), list(region.shape), list(region.start)
    low_shape[axis], high_shape[axis] = at, region.shape[axis] - at
    high_start[axis] += at
    low = Region(region.start, tuple(low_shape))
    high = Region(tuple(high_start), tuple(high_shape))
    return split(rng, low, depth - 1) + split(rng, high, depth - 1)


@settings(max_examples=400)
@given(pairs())
def test_parts_add_up_to_the_whole(pair):
    x_bits, y_bits, x_name, y_name, rng = pair
    shape = x_bits.shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = whole_stats(x_bits, y_bits, x_name, y_name)
        check(x_bits, y_bits, x_name, y_name, whole)
        parts = []
        for region in split(rng, Region.whole(shape), depth=3):
            sides = []
            for bits, name in ((x_bits, x_name), (y_bits, y_name)):
                if rng.random() < 0.5:
                    sides.append(operand(bits, name, region))
                else:
                    piece = cut(bits, region)
                    sides.append(operand(piece, name, Region.whole(piece.shape)))
            parts.append(pair_stats(sides[0], sides[1], shape, region))
        order = rng.permutation(len(parts))
        merged = functools.reduce(PairStats.merge, [parts[i] for i in order], PairStats.empty())
    check(x_bits, y_bits, x_name, y_name, merged)
    for name in COUNTS:
        assert getattr(merged, name) == getattr(whole, name)

"""Sides that are sums of several stored tensors, against the sum assembled in float64 or in 64-bit integers."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare import schedule
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.kernels import operands
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.kernels.tolerance import tolerance
from aclcmp.orchestrator.compare.pair import Operand, pair_stats, read_pair_stats
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats
from tests.compare.reference import assert_agree, reference_stats, values
from tests.compare.test_pair import FLAVOURS, cut, encode, operand, random_bits, split
from tests.processes import memory_growth

NAMES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e5m2"),
    *("int64", "int32", "int8", "uint64", "bool"),
    *("complex128", "complex64", "complex32"),
)

Array = npt.NDArray[Any]


def total(summed: list[Array], name: str) -> tuple[Array, str]:
    """The bits and the type of the assembled sum; of one summand they are its own."""
    dtype = DTYPES[name]
    if dtype.kind in (Kind.INT, Kind.BOOL):
        wide = "uint64" if name == "uint64" else "int64"
        return np.asarray(functools.reduce(np.add, [each.astype(wide) for each in summed])), wide
    if len(summed) == 1:
        return summed[0], name
    with np.errstate(all="ignore"):
        sums = np.asarray(functools.reduce(np.add, [values(each, name) for each in summed]))
    if dtype.kind is Kind.COMPLEX:
        return sums.view(np.complex128).reshape(summed[0].shape), "complex128"
    return sums, "float64"


def check(x: list[Array], y: list[Array], x_name: str, y_name: str, found: PairStats) -> None:
    """Compare statistics of whole tensors with the reference's."""
    (x_bits, x_wide), (y_bits, y_wide) = total(x, x_name), total(y, y_name)
    shape, region = x_bits.shape, Region.whole(x_bits.shape)

    lowest = DTYPES[x_name].lowest, DTYPES[y_name].lowest  # also of sums

    def reference(factor: float) -> PairStats:
        return reference_stats(x_bits, y_bits, x_wide, y_wide, shape, region, factor, lowest)

    x_values, y_values = values(x_bits, x_wide), values(y_bits, y_wide)
    rtol, atol = tolerance(DTYPES[x_name], DTYPES[y_name])
    with np.errstate(all="ignore"):
        finite = np.isfinite(x_values) & np.isfinite(y_values) & ~((x_values <= lowest[0]) & (y_values <= lowest[1]))
        abs_x, abs_y = (float(np.abs(side[finite]).sum()) for side in (x_values, y_values))
        excess = np.where(finite, np.abs(y_values - x_values), -1) / (atol + rtol * np.abs(x_values))
    assert_agree(found, replace(reference(1.0), max_ulp=-1), abs_x, abs_y)
    least, most = reference(1 + 1e-6), reference(1 - 1e-6)
    for name in ("n_over_1k", "n_over_5k"):
        assert getattr(least, name) <= getattr(found, name) <= getattr(most, name), name
    if DTYPES[x_name].kind in (Kind.INT, Kind.BOOL):
        assert found.n_over_tolerance == found.n - found.n_equal
    else:
        assert (excess > 1 + 1e-6).sum() <= found.n_over_tolerance <= (excess > 1 - 1e-6).sum()


def sum_operand(summed: list[Array], name: str, region: Region) -> Operand:
    first, *more = (operand(each, name, region) for each in summed)
    return replace(first, more=tuple(more))


def store(path: Path, summed: list[Array], name: str) -> tuple[Source, ...]:
    """Write summands one behind the other."""
    path.write_bytes(b"\xff" * 8 + b"".join(each.tobytes() for each in summed))
    return tuple(Source(str(path), 8 + each.nbytes * i, name, each.shape) for i, each in enumerate(summed))


def stored_pair(golden: tuple[Source, ...], actual: tuple[Source, ...], region: Region | None = None) -> Pair:
    region = region or Region.whole(golden[0].shape)
    return Pair(
        LabelKey(0, "x", 0), 0, golden[0], region, actual[0], region, golden[0].shape, region, "Partial()",
        golden[1:], actual[1:],
    )  # fmt: skip


@st.composite
def sums(draw: st.DrawFn) -> tuple[list[Array], list[Array], str, str, np.random.Generator]:
    """Draw (golden summands, actual summands, golden type, actual type, generator); one side at least is a sum."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x_name = draw(st.sampled_from(NAMES))
    same_kind = [name for name in NAMES if DTYPES[name].kind is DTYPES[x_name].kind]
    y_name = draw(st.one_of(st.just(x_name), st.sampled_from(same_kind)))
    sizes = draw(st.sampled_from([(0, 5), (1, 5), (1, 13), (1, 40)]))
    shape = tuple(draw(st.lists(st.integers(*sizes), max_size=4 if sizes[1] < 40 else 3)))
    counts = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)).filter(lambda both: max(both) > 1))
    flavour = draw(st.sampled_from(FLAVOURS))
    x, y = (
        [random_bits(rng, name, shape, flavour) for _ in range(count)]
        for name, count in zip((x_name, y_name), counts, strict=True)
    )
    if flavour == "equal" and x_name == y_name and len(x) > 1:
        y = x[::-1]
    if DTYPES[x_name].kind is Kind.FLOAT and draw(st.booleans()) and x[0].size:
        specials = encode(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0]), x_name)
        x = [each.copy() for each in x]
        for each in x:
            each.reshape(-1)[rng.integers(0, each.size, 1 + each.size // 3)] = rng.choice(specials)
    return x, y, x_name, y_name, rng


@settings(max_examples=150)
@given(sums())
def test_statistics_are_those_of_the_assembled_sums(drawn: Any) -> None:
    x, y, x_name, y_name, rng = drawn
    shape = x[0].shape
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = Region.whole(shape)
        check(
            x, y, x_name, y_name, pair_stats(sum_operand(x, x_name, whole), sum_operand(y, y_name, whole), shape, whole)
        )
        for region in split(rng, whole, depth=3):
            sides = []
            for summed, name in ((x, x_name), (y, y_name)):
                if rng.random() < 0.5:
                    sides.append(sum_operand(summed, name, region))
                else:
                    pieces = [cut(each, region) for each in summed]
                    sides.append(sum_operand(pieces, name, Region.whole(region.shape)))
            parts.append(pair_stats(sides[0], sides[1], shape, region))
    check(x, y, x_name, y_name, functools.reduce(PairStats.merge, parts, PairStats.empty()))


@pytest.mark.parametrize(
    ("name", "counts"), [("float32", (1, 3)), ("bfloat16", (3, 2)), ("int32", (2, 1)), ("complex64", (2, 2))]
)
def test_stored_sums_of_many_windows(tmp_path: Path, name: str, counts: tuple[int, int]) -> None:
    shape = (3, operands.SUM_WINDOW // DTYPES[name].itemsize + 77, 1)
    rng = np.random.default_rng(0)
    x, y = ([random_bits(rng, name, shape, "ordinary") for _ in range(count)] for count in counts)
    golden, actual = store(tmp_path / "x", x, name), store(tmp_path / "y", y, name)
    check(x, y, name, name, read_pair_stats(stored_pair(golden, actual)))
    region = Region((1, 5, 0), (2, shape[1] - 9, 1))
    parts = [
        read_pair_stats(stored_pair(golden, actual, each))
        for each in (
            region,
            Region((0, 0, 0), (1, shape[1], 1)),
            Region((1, 0, 0), (2, 5, 1)),
            Region((1, shape[1] - 4, 0), (2, 4, 1)),
        )
    ]
    check(x, y, name, name, functools.reduce(PairStats.merge, parts))


def test_narrow_sums_are_not_rounded_and_wide_integers_stay_exact() -> None:
    half = np.full(1, 0.0, np.float16)
    thin = [half + np.float16(2048), half + np.float16(1), half + np.float16(0.5)]
    region = Region.whole((1,))
    stats = pair_stats(sum_operand(thin, "float16", region), operand(thin[0], "float16", region), (1,), region)
    assert (stats.max_abs_d_x, stats.max_abs_d, stats.max_ulp) == (2049.5, 1.5, -1)

    large = [np.array([2**60], np.int64), np.array([2**60 + 1], np.int64)]
    sum_of = sum_operand(large, "int64", region)
    close = operand(np.array([2**61], np.int64), "int64", region)
    same = operand(np.array([2**61 + 1], np.uint64), "uint64", region)
    assert pair_stats(sum_of, close, (1,), region).n_equal == 0
    assert pair_stats(sum_of, same, (1,), region).n_equal == 1
    bytes_ = [np.array([100], np.int8)] * 3
    stats = pair_stats(sum_operand(bytes_, "int8", region), operand(bytes_[0], "int8", region), (1,), region)
    assert (stats.max_abs_d_x, stats.n_over_tolerance) == (300.0, 1)


def test_infinities_of_both_signs_are_nan_and_zeros_keep_their_sign() -> None:
    x = [np.array([np.inf, np.inf, -0.0, -0.0, 3e38], np.float32), np.array([-np.inf, 1, -0.0, 0, 3e38], np.float32)]
    y = np.array([np.nan, np.inf, -0.0, 0.0, np.inf], np.float32)
    region = Region.whole((5,))
    stats = pair_stats(sum_operand(x, "float32", region), operand(y, "float32", region), (5,), region)
    assert (stats.nan_x, stats.posinf_x, stats.n_nonfinite_equal, stats.n_equal) == (1, 1, 2, 4)
    assert stats.posinf_y == 2 and stats.max_x == 0


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_tensors(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = [np.full(shape, i, np.float32) for i in range(4)]
    sources = store(tmp_path / "x", x, "float32")
    stats = read_pair_stats(stored_pair(sources, sources[3:] + sources[3:]))
    assert (stats.n, stats.n_equal, stats.max_ulp) == (x[0].size, x[0].size, -1)


def test_what_cannot_be_added_up_is_refused(tmp_path: Path) -> None:
    sources = store(tmp_path / "x", [np.ones((2, 3), np.float32)] * 3, "float32")
    whole = stored_pair(sources, sources)
    for other in (replace(sources[1], dtype="int32"), replace(sources[1], shape=(3, 2))):
        more = (sources[2], other)
        for wrong in (replace(whole, more_golden=more), replace(whole, more_actual=more)):
            with pytest.raises(ValueError, match=r"summands differ: float32 \(2, 3\) .* and "):
                read_pair_stats(wrong)
    empty = store(tmp_path / "e", [np.ones((0, 3), np.float32)] * 2, "float32")
    with pytest.raises(ValueError, match="summands differ"):
        read_pair_stats(stored_pair((empty[0], replace(empty[1], dtype="float16")), empty))
    with pytest.raises(ShardError, match="--capture full"):
        read_pair_stats(replace(whole, more_actual=(replace(sources[1], capture="stats", nbytes=8),)))
    with pytest.raises(ShardError, match="truncated"):
        read_pair_stats(replace(whole, more_golden=(replace(sources[1], offset=80),)))
    good = CompareActor.compare(CompareActor.__new__(CompareActor), [whole])[0]
    assert isinstance(good, PairStats) and good.n_equal == 6


def test_scheduling_counts_and_cuts_all_summands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (7, 10)
    x = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(5)]
    golden, actual = store(tmp_path / "x", x[:3], "float32"), store(tmp_path / "y", x[3:], "float32")
    whole = stored_pair(golden, actual)
    assert schedule.pair_bytes(whole) == 5 * 70 * 4
    monkeypatch.setattr(schedule, "SPLIT_BYTES", 5 * 70)
    parts = schedule.split(whole)
    assert len(parts) == 4 and sum(map(schedule.pair_bytes, parts)) == schedule.pair_bytes(whole)
    assert all(part.sources == whole.sources for part in parts)
    check(x[:3], x[3:], "float32", "float32", functools.reduce(PairStats.merge, map(read_pair_stats, parts)))
    summary = replace(whole, more_golden=(replace(golden[1], capture="stats"), golden[2]))
    assert schedule.split(summary) == [summary]


def test_memory_does_not_grow_with_the_summands(tmp_path: Path) -> None:
    load_library()
    shape = (32 << 10, 1 << 10)
    block = encode(np.random.default_rng(0).standard_normal(1 << 20), "bfloat16").tobytes()
    with (tmp_path / "x").open("wb") as file:  # 256 MiB: four summands of 64 MiB
        for _ in range(128):
            file.write(block)
    sources = tuple(Source(str(tmp_path / "x"), i << 26, "bfloat16", shape) for i in range(4))
    with memory_growth([psutil.Process()]) as growth:
        stats = read_pair_stats(stored_pair(sources, sources[::-1]))
    assert stats.n == stats.n_equal == 32 << 20
    assert growth and max(growth) < 24 << 20

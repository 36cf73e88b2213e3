"""Slices read to be sent elsewhere are those of the tensor, and comparing them is comparing in place."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.summarise import summarise
from aclcmp.orchestrator.compare import remote_reads
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.kernels.memory_map import MappedBits, open_bits
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.remote_reads import read_bytes, read_dense, reads_of
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats
from tests.compare.test_pair import random_bits
from tests.processes import memory_growth

ACTOR = CompareActor.__new__(CompareActor)


def store(path: Path, bits: np.ndarray, dtype: str, offset: int = 8, rank: int = 0) -> Source:
    path.write_bytes(b"\xff" * offset + bits.tobytes())
    return Source(str(path), offset, dtype, bits.shape, rank=rank)


@st.composite
def regions(draw: st.DrawFn) -> tuple[tuple[int, ...], Region]:
    """Draw the shape of a tensor and a region in it."""
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    spans = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
    return shape, Region(tuple(a for a, _ in spans), tuple(b - a for a, b in spans))


@settings(max_examples=200)
@given(regions(), st.sampled_from(sorted(DTYPES)), st.sampled_from([0, 8, 4_093]), st.sampled_from([1, 64, 4 << 20]))
def test_a_region_is_read_as_it_is(
    tmp_path: Path, drawn: tuple[tuple[int, ...], Region], dtype: str, offset: int, window: int
) -> None:
    shape, region = drawn
    bits = random_bits(np.random.default_rng(0), dtype, shape, "any bits")
    source = store(tmp_path / "x", bits, dtype, offset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_reads, "_WINDOW_BYTES", window)
        dense = read_dense((source, region))
    assert dense.dtype == np.uint8 and dense.ndim == 1 and dense.nbytes == read_bytes((source, region))
    assert dense.tobytes() == bits[region.slices].tobytes()


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("case", ["columns", "rows", "summands", "scalar", "empty"])
def test_what_was_fetched_has_the_statistics_of_what_is_there(tmp_path: Path, dtype: str, case: str) -> None:
    rng = np.random.default_rng(1)
    shape: tuple[int, ...] = {"scalar": (), "empty": (0, 12)}.get(case, (21, 33))
    start = {"columns": (0, 5), "rows": (4, 0), "summands": (3, 7)}.get(case, (0,) * len(shape))
    size = {"columns": (21, 11), "rows": (9, 33), "summands": (13, 17)}.get(case, shape)
    region = Region(start, size)
    count = 3 if case == "summands" else 1
    golden = [random_bits(rng, dtype, shape, "ordinary") for _ in range(count)]
    actual = [np.array(golden[0][region.slices]), *(random_bits(rng, dtype, size, "tiny"),) * (count - 1)]
    sources = [
        [store(tmp_path / f"{side}{i}", bits, dtype) for i, bits in enumerate(summands)]
        for side, summands in (("x", golden), ("y", actual))
    ]
    pair = Pair(
        LabelKey(0, "x", 0), 0, sources[0][0], region, sources[1][0], Region.whole(size), shape, region, "",
        tuple(sources[0][1:]), tuple(sources[1][1:]),
    )  # fmt: skip
    there = repr(read_pair_stats(pair))
    reads = reads_of(pair)
    assert len(reads) == 2 * count
    for wanted in (reads[:1], reads[-1:], reads[::2], reads):
        _, found = ACTOR.read(wanted)
        (result,) = ACTOR.compare([pair], found)
        assert repr(result) == there


@pytest.mark.parametrize("sides", [(True, True), (True, False), (False, True)])
def test_summaries_travel_packed(tmp_path: Path, sides: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(2)
    shape = (40, 50)
    tensors = [random_bits(rng, "bfloat16", shape, "ordinary") for _ in sides]
    sources = []
    for number, (bits, kept) in enumerate(zip(tensors, sides, strict=True)):
        source = store(tmp_path / f"whole{number}", bits, "bfloat16")
        if kept:
            flat = np.ascontiguousarray(bits).reshape(-1).view(np.uint8)
            packed = summarise(flat, "bfloat16", shape, sketch=True).pack()
            (tmp_path / f"kept{number}").write_bytes(packed.tobytes())
            source = Source(str(tmp_path / f"kept{number}"), 0, "bfloat16", shape, "fingerprint", packed.nbytes)
        sources.append(source)
    whole = Region.whole(shape)
    pair = Pair(LabelKey(0, "x", 0), 0, sources[0], whole, sources[1], whole, shape, whole, "")
    reads = reads_of(pair)
    assert [read_bytes(read) for read in reads] == [
        source.nbytes if kept else 4_000 for source, kept in zip(sources, sides, strict=True)
    ]
    nbytes, found = ACTOR.read(reads)
    assert nbytes == sum(map(read_bytes, reads))
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix(".away"))
    (result,) = ACTOR.compare([pair], found)
    assert isinstance(result, PairStats) and result.n == 2_000
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix(""))
    assert repr(result) == repr(read_pair_stats(pair))
    assert reads_of(replace(pair, more_golden=(sources[0],))) == []


def test_what_cannot_be_read_is_told_with_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "far")
    good = store(tmp_path / "good", np.ones((3, 4), np.float32), "float32")
    short = replace(store(tmp_path / "short", np.ones((3, 4), np.float32), "float32"), offset=12)
    gone = replace(good, path=str(tmp_path / "gone"))
    whole = Region.whole((3, 4))
    nbytes, found = ACTOR.read([(source, whole) for source in (good, short, gone)])
    assert nbytes == 48
    pairs = [
        Pair(LabelKey(0, "x", 0), 0, golden, whole, good, whole, (3, 4), whole, "") for golden in (good, short, gone)
    ]
    results = ACTOR.compare(pairs, found)
    assert isinstance(results[0], PairStats) and results[0].n_equal == 12
    assert results[1] == f"host far: {short.path}: has 56 bytes, but a tensor in it ends at byte 60; it is truncated"
    assert results[2] == f"host far: {gone.path}: No such file or directory"
    unknown = (replace(good, dtype="float1"), whole)
    assert ACTOR.read([unknown])[1][unknown] == f"host far: {good.path} cannot be read: KeyError: 'float1'"
    with pytest.raises(ShardError, match="host far"):
        read_pair_stats(pairs[1], found)


def test_a_summary_whose_file_is_cut_while_it_is_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_and_cut(source: Source) -> MappedBits:
        opened = open_bits(source)
        os.truncate(source.path, 0)
        return opened

    packed = summarise(np.zeros(256, np.uint8), "float32", (8, 8), sketch=False).pack()
    (tmp_path / "kept").write_bytes(packed.tobytes())
    source = Source(str(tmp_path / "kept"), 0, "float32", (8, 8), "norms", packed.nbytes)
    assert read_dense((source, Region.whole((8, 8)))).tobytes() == packed.tobytes()
    monkeypatch.setattr(remote_reads, "open_bits", open_and_cut)
    with pytest.raises(ShardError, match="cut while it was compared"):
        read_dense((source, Region.whole((8, 8))))


def test_memory_is_that_of_the_slice(tmp_path: Path) -> None:
    shape = (16 << 10, 8 << 10)
    with (tmp_path / "x").open("wb") as file:
        for _ in range(shape[0] // 256):
            file.write(bytes(range(256)) * (256 * shape[1] * 2 // 256))  # 256 MiB
    source, region = Source(str(tmp_path / "x"), 0, "bfloat16", shape), Region((0, 100), (shape[0], 256))
    with memory_growth([psutil.Process()]) as growth:
        dense = read_dense((source, region))
    assert dense.nbytes == 8 << 20 == math.prod(region.shape) * 2
    assert growth and max(growth) < 24 << 20

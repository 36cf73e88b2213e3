"""Large pairs are cut into parts that cover them; batches keep every part once, where most of it lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare import schedule
from aclcmp.orchestrator.compare.kernels.region_split import pieces, within
from aclcmp.orchestrator.compare.remote_reads import read_bytes
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source

SHAPES = st.lists(st.integers(1, 40), min_size=0, max_size=4)
SMALL = st.lists(st.integers(1, 11), min_size=0, max_size=4)


here = FileLocations("here")
own = FileLocations("none", {rank: f"node{rank}" for rank in range(10)})


def pair_of(
    shape: tuple[int, ...],
    whole: tuple[int, ...],
    start: tuple[int, ...],
    golden: tuple[int, ...] = (0,),
    actual: tuple[int, ...] = (0,),
    dtypes: tuple[str, str] = ("float32", "float32"),
) -> Pair:
    """A pair whose golden is `shape` from `start` on in tensors of the ranks `golden`, and whose actual is whole."""
    goldens = tuple(Source(f"g{rank}", 0, dtypes[0], whole, rank=rank) for rank in golden)
    actuals = tuple(Source(f"a{rank}", 0, dtypes[1], shape, rank=rank) for rank in actual)
    region = Region(start, shape)
    return Pair(
        LabelKey(0, "x", 0), actual[0], goldens[0], region, actuals[0], Region.whole(shape), whole, region, "",
        goldens[1:], actuals[1:],
    )  # fmt: skip


def summary(source: Source, nbytes: int) -> Source:
    return Source(source.path, 0, source.dtype, source.shape, "stats", nbytes, source.rank)


def check_cover(pair: Pair, parts: list[Pair]) -> None:
    """The parts are disjoint, and together they are the pair, on each side and in the whole."""
    for side in ("golden_region", "actual_region", "region"):
        sizes = pair.golden.shape if side != "actual_region" else pair.actual.shape
        seen = np.zeros(sizes, int)
        for part in parts:
            box = getattr(part, side)
            seen[box.slices] += 1
        assert seen.sum() == pair.region.size and seen.max(initial=0) <= 1
    for part in parts:
        moved = {
            tuple(a - b for a, b in zip(getattr(part, side).start, getattr(pair, side).start, strict=True))
            for side in ("golden_region", "actual_region", "region")
        }
        assert len(moved) == 1 and part.sources == pair.sources


@given(SHAPES, st.integers(8, 4096))
def test_parts_cover_the_pair_exactly_once(shape: list[int], limit: int) -> None:
    whole = tuple(n + 3 for n in shape)
    pair = pair_of(tuple(shape), whole, (2,) * len(shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "SPLIT_BYTES", limit)
        check_cover(pair, schedule.split(pair))


@given(SMALL, st.integers(1, 300), st.integers(0, 30), st.sampled_from([1, 8, 24]))
def test_parts_that_travel_are_below_the_limit(shape: list[int], parts_wanted: int, more: int, itemsize: int) -> None:
    pair = pair_of(tuple(shape), tuple(n + 3 for n in shape), (1,) * len(shape))
    limit = pair.region.size * itemsize // parts_wanted + more + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "FETCH_BYTES", limit)
        parts = schedule.split(pair, itemsize * pair.region.size)
    check_cover(pair, parts)
    assert all(part.region.size * itemsize <= max(limit, itemsize) for part in parts)
    if pair.region.size * itemsize <= limit:
        assert parts == [pair]


@given(SMALL, st.integers(1, 60))
def test_regions_are_cut_in_order(shape: list[int], count: int) -> None:
    region = Region((1,) * len(shape), tuple(shape))
    cut = pieces(region, count)
    assert len(cut) == min(count, next((n for n in shape if n > 1), 1))
    assert max(part.size for part in cut) <= 2 * min(part.size for part in cut)
    for parts in (cut, list(within(region, 1 + region.size // count, lambda part: part.size))):
        assert [part.start for part in parts] == sorted(part.start for part in parts)
        assert sum(part.size for part in parts) == region.size


def test_nothing_and_single_elements_are_not_cut() -> None:
    for shape in ((), (1, 1), (0,), (3, 0, 5)):
        pair = pair_of(shape, shape, (0,) * len(shape))
        assert schedule.split(pair, 1 << 40 if pair.region.size else 0) == [pair]


def test_a_pair_is_compared_where_most_of_it_lies() -> None:
    def at(golden: tuple[int, ...], actual: tuple[int, ...], dtypes: tuple[str, str] = ("float32", "float32")) -> str:
        return schedule.home(pair_of((4, 2), (4, 8), (0, 2), golden, actual, dtypes), own)

    assert at((0,), (0,)) == "node0"
    assert at((0,), (1,)) == "node1"  # as much on both: by the actual side
    assert at((0,), (1,), dtypes=("float32", "bfloat16")) == "node0"
    assert at((0,), (1,), dtypes=("bfloat16", "float32")) == "node1"
    assert at((0, 1, 2, 2), (3,)) == "node2"  # two summands
    assert at((0, 1), (2, 3)) == "node2"
    empty = pair_of((0, 2), (4, 8), (0, 2), (0,), (1,), ("float64", "int8"))
    assert schedule.home(empty, own) == "node1"


def test_a_summary_is_as_large_as_it_is_packed() -> None:
    pair = pair_of((100, 100), (100, 100), (0, 0), (0,), (1,))
    kept = Pair(
        pair.key, 1, summary(pair.golden, 800), pair.golden_region, pair.actual, pair.actual_region, pair.whole_shape,
        pair.region, "",
    )  # fmt: skip
    assert schedule.home(kept, own) == "node1"
    assert schedule.missing_reads([kept], "node1", own) == {"node0": [(kept.golden, Region.whole((100, 100)))]}
    assert sum(map(read_bytes, schedule.missing_reads([kept], "node1", own)["node0"])) == 800
    assert schedule.split(kept, 1 << 40) == [kept]
    refused = Pair(
        pair.key, 1, kept.golden, pair.golden_region, pair.actual, pair.actual_region, pair.whole_shape, pair.region,
        "", more_golden=(pair.golden,),
    )  # fmt: skip
    assert schedule.missing_reads([refused], "node1", own) == {}  # it is refused unread


def test_what_travels() -> None:
    first, second = (pair_of((4, 2), (4, 8), (0, column), (0, 1), (2,)) for column in (0, 2))
    reads = schedule.missing_reads([first, second, first], "node2", own)
    for rank in (0, 1):
        source = Source(f"g{rank}", 0, "float32", (4, 8), rank=rank)
        assert reads.pop(f"node{rank}") == [(source, first.golden_region), (source, second.golden_region)]
    assert not reads
    assert schedule.missing_reads([first], "node0", own).keys() == {"node1", "node2"}
    assert schedule.missing_reads([first, second], "here", here) == {}


def test_batches_keep_order_and_bound_the_work() -> None:
    pairs = [pair_of((1024, 1024), (1024, 1024), (0, 0)) for _ in range(20)] + [pair_of((1,), (1,), (0,))] * 300
    grouped = schedule.batches(pairs, "here", here)
    assert [pair for batch in grouped for pair in batch] == pairs
    assert max(map(len, grouped)) <= schedule.BATCH_PAIRS
    assert len(grouped) >= 7


@given(
    st.lists(
        st.tuples(
            st.tuples(st.integers(0, 9), st.integers(1, 9)),
            st.lists(st.integers(0, 3), min_size=1, max_size=3),
            st.lists(st.integers(0, 3), min_size=1, max_size=3),
        ),
        max_size=12,
    ),
    st.integers(64, 600),
)
def test_batches_carry_little(drawn: list[tuple[tuple[int, int], list[int], list[int]]], limit: int) -> None:
    pairs = [pair_of(shape, (20, 20), (3, 5), tuple(golden), tuple(actual)) for shape, golden, actual in drawn]

    def fetched(batch: list[Pair], node: str) -> int:
        return sum(read_bytes(read) for reads in schedule.missing_reads(batch, node, own).values() for read in reads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "FETCH_BYTES", limit)
        for node in {schedule.home(pair, own) for pair in pairs}:
            work = [pair for pair in pairs if schedule.home(pair, own) == node]
            grouped = schedule.batches(work, node, own)
            assert all(fetched(batch, node) <= limit for batch in grouped)
            assert sum(pair.region.size for batch in grouped for pair in batch) == sum(p.region.size for p in work)
            assert all(batch for batch in grouped)


def test_what_many_pairs_share_travels_once() -> None:
    pairs = [pair_of((64, 1024), (64, 1024), (0, 0), (0,), (rank,)) for rank in range(1, 5)]

    places = FileLocations("here", {0: "there"})
    (batch,) = schedule.batches(pairs, "here", places)
    assert batch == pairs
    assert schedule.missing_reads(batch, "here", places) == {"there": [(pairs[0].golden, pairs[0].golden_region)]}

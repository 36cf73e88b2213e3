"""Large pairs are cut into parts that cover them; batches keep every part once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.compare import schedule
from aclcmp.orchestrator.plan.regions import LabelKey, Pair, Region, Source


def pair_of(shape: tuple[int, ...], whole: tuple[int, ...], start: tuple[int, ...]) -> Pair:
    golden, actual = Source("g", 0, "float32", whole), Source("a", 0, "float32", shape)
    region = Region(start, shape)
    return Pair(LabelKey(0, "x", 0), 0, golden, region, actual, Region.whole(shape), whole, region, "")


@given(st.lists(st.integers(1, 40), min_size=0, max_size=4), st.integers(8, 4096))
def test_parts_cover_the_pair_exactly_once(shape: list[int], limit: int) -> None:
    whole = tuple(n + 3 for n in shape)
    pair = pair_of(tuple(shape), whole, (2,) * len(shape))
    before, schedule.SPLIT_BYTES = schedule.SPLIT_BYTES, limit
    try:
        parts = schedule.split(pair)
    finally:
        schedule.SPLIT_BYTES = before
    for side in ("golden_region", "actual_region", "region"):
        sizes = pair.golden.shape if side != "actual_region" else pair.actual.shape
        seen = np.zeros(sizes, int)
        for part in parts:
            box = getattr(part, side)
            seen[tuple(slice(s, s + n) for s, n in zip(box.start, box.shape, strict=True))] += 1
        assert seen.sum() == pair.region.size and seen.max(initial=0) <= 1


def test_batches_keep_order_and_bound_the_work() -> None:
    pairs = [pair_of((1024, 1024), (1024, 1024), (0, 0)) for _ in range(20)] + [pair_of((1,), (1,), (0,))] * 300
    grouped = schedule.batches(pairs)
    assert [pair for batch in grouped for pair in batch] == pairs
    assert max(map(len, grouped)) <= schedule.BATCH_PAIRS
    assert len(grouped) >= 7

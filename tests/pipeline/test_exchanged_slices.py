"""Slices of another rank and exchanged parts of a fused tensor: told where values prove it, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.core.plan import LabelPlan, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region
from tests.judge.test_hints import World
from tests.judge.wrong import FACTS

RANKS, ROWS = 4, 40


def values(seed: int, columns: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, columns)) * scale


def noisy(x: np.ndarray) -> np.ndarray:
    return x * (1 + 1e-5 * np.random.default_rng(7).standard_normal(x.shape))


class Slices(World):
    """Labels of which each rank holds its slice, of one part or of several side by side."""

    def put(
        self, x: np.ndarray, actual: Sequence[np.ndarray], name: str = "layers.1.q", parts: Sequence[int] = ()
    ) -> None:
        """Add a label; `parts` are the sizes of those that make up x."""
        golden, key = self.source(x), LabelKey(0, name, 0)
        pairs: list[Pair] = []
        for rank, y in enumerate(actual):
            source, begin, at = self.source(y, rank), 0, 0
            for size in parts or [x.shape[1]]:
                width = size // len(actual)
                region = Region((0, begin + rank * width), (ROWS, width))
                pair = Pair(key, rank, golden, region, source, Region((0, at), (ROWS, width)), x.shape, region, "")
                pairs.append(pair)
                begin, at = begin + size, at + width
        self.labels.append(LabelPlan(key, dict.fromkeys(range(len(actual)), Sides(FACTS, FACTS)), tuple(pairs)))

    def told(self) -> list[tuple[tuple[int, ...], str, str]]:
        return [(hint.ranks, hint.kind, hint.words.partition(":")[0]) for hint in self.diagnose().hints]


@pytest.fixture
def world(tmp_path: Path) -> Slices:
    return Slices(tmp_path)


def slices(x: np.ndarray, order: Sequence[int], parts: Sequence[int] = ()) -> list[np.ndarray]:
    """Return what ranks hold that take the slices of others: rank r that of rank order[r]."""
    pieces = np.split(x, np.cumsum(parts)[:-1], 1) if parts else [x]
    return [noisy(np.concatenate([np.split(part, len(order), 1)[rank] for part in pieces], 1)) for rank in order]


@pytest.mark.parametrize("parts", [(), (128, 64, 64)])
@pytest.mark.parametrize(
    ("order", "ranks", "words"),
    [
        ((0, 2, 2, 3), (1,), "rank 1 holds what belongs to rank 2"),
        ((0, 2, 1, 3), (1, 2), "ranks 1 and 2 hold each other's slices"),
        ((3, 1, 2, 0), (0, 3), "ranks 0 and 3 hold each other's slices"),
        (
            (1, 2, 3, 0),
            (0, 1, 2, 3),
            "rank 0 holds what belongs to rank 1, rank 1 that of rank 2, rank 2 that of rank 3 and 1 more",
        ),
        ((1, 1, 1, 3), (0, 2), "rank 0 holds what belongs to rank 1, rank 2 that of rank 1"),
    ],
)
def test_the_slice_of_another_rank(
    world: Slices, order: Sequence[int], ranks: tuple[int, ...], words: str, parts: Sequence[int]
) -> None:
    x = values(1, 256)
    world.put(values(0, 256), slices(values(0, 256), range(RANKS)), "layers.0.q")
    world.put(x, slices(x, order, parts), parts=parts)
    assert world.told() == [(ranks, "another rank's slice", words)]


@pytest.mark.parametrize(
    ("name", "sizes", "which", "words"),
    [
        ("layers.1.attn.qkv_proj", (256, 64, 64), (1, 2), "k and v are exchanged in the qkv_proj of rank 2"),
        ("layers.1.attn.qkv", (64, 64, 64), (0, 2), "q and v are exchanged in the qkv of rank 2"),
        ("layers.1.mlp.gate_up_proj", (128, 128), (0, 1), "gate and up are exchanged in the gate_up_proj of rank 2"),
        ("layers.1.mlp.w13", (128, 128), (0, 1), "parts 1 and 2 are exchanged in the w13 of rank 2"),
        ("layers.1.attn.qkv", (128, 128), (0, 1), "parts 1 and 2 are exchanged in the qkv of rank 2"),
    ],
)
def test_exchanged_parts(world: Slices, name: str, sizes: Sequence[int], which: tuple[int, int], words: str) -> None:
    x = values(2, sum(sizes))
    actual = slices(x, range(RANKS), sizes)
    own = np.split(actual[2], np.cumsum(np.array(sizes) // RANKS)[:-1], 1)
    own[which[0]], own[which[1]] = own[which[1]], own[which[0]]
    actual[2] = np.concatenate(own, 1)
    world.put(x, actual, name, sizes)
    assert world.told() == [((2,), "exchanged parts", words)]


def test_other_ranks_keep_their_own_hints(world: Slices) -> None:
    x = values(3, 256)
    actual = slices(x, (0, 2, 2, 3))
    actual[3] = 2 * actual[3]
    world.put(x, actual)
    assert [(ranks, kind) for ranks, kind, _ in world.told()] == [((1,), "another rank's slice"), ((3,), "scale")]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]), st.booleans())
def test_what_merely_resembles_another_slice_is_not_told(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, with_parts: bool
) -> None:
    world = Slices(tmp_path_factory.mktemp("world"))
    x, parts = values(seed, 256), (128, 64, 64) if with_parts else ()
    actual, random = slices(x, (0, 2, 2, 3), parts), values(seed + 1, 64)
    actual[1] = share * actual[1] + (1 - share) * random
    world.put(x, actual, parts=parts)
    kinds = [kind for _, kind, _ in world.told()]
    assert "another rank's slice" not in kinds and "exchanged parts" not in kinds


def test_half_of_a_slice_is_another_fault(world: Slices) -> None:
    """A sample of the rows that are wrong looks right beside the other slice: only all values prove it."""
    x = values(4, 4096)
    actual = slices(x, (0, 2, 2, 3))
    actual[1][:8] = slices(x, range(RANKS))[1][:8]
    world.put(x, actual)
    assert not any(kind == "another rank's slice" for _, kind, _ in world.told())


def test_constant_slices_belong_to_nobody(world: Slices) -> None:
    x = values(5, 256)
    x[:, 128:192] = 0.0
    actual = slices(x, range(RANKS))
    actual[1] = np.zeros_like(actual[1])
    world.put(x, actual)
    assert [kind for _, kind, _ in world.told()] == ["zeros"]


def test_wholes_are_nobodys_slices(world: Slices) -> None:
    x = values(6, 64)
    world.add(x, [noisy(x), noisy(values(8, 64)), noisy(x), noisy(x)], "layers.1.norm")
    assert world.told() == []


def test_what_no_sample_suggests_is_not_read(world: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    x = values(9, 1 << 14)
    actual = slices(x, range(RANKS))
    actual[1] = values(10, 1 << 12)
    world.put(x, actual)
    read = 0
    compare = world.compare

    def counting(pairs: Sequence[Pair]) -> object:
        nonlocal read
        read += sum(pair.region.size for pair in pairs)
        return compare(pairs)

    plan = world.plan
    monkeypatch.setattr(world, "compare", counting)
    assert world.told() == []
    of_slice = ROWS << 12
    assert read - RANKS * of_slice <= 2 * of_slice, "beside the comparison itself: sums over ranks, and three samples"
    assert plan.labels == world.plan.labels


def test_golden_slices_that_lie_apart_are_tried_too(world: Slices) -> None:
    """Golden ranks of another run hold a slice each."""
    x = values(11, 256)
    world.put(x, slices(x, (0, 2, 2, 3)))
    (label,) = world.labels
    cut = np.split(x, RANKS, 1)
    pairs = [
        replace(pair, golden=world.source(cut[pair.rank], pair.rank), golden_region=Region.whole(pair.region.shape))
        for pair in label.pairs
    ]
    world.labels = [replace(label, pairs=tuple(pairs))]
    assert world.told() == [((1,), "another rank's slice", "rank 1 holds what belongs to rank 2")]

"""A second look at stored pairs: sums by channel and histograms against numpy, excerpts, and real compare actors."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.second_looks import look_again
from aclcmp.orchestrator.compare.diagnosis.excerpt import excerpt_of
from aclcmp.orchestrator.compare.diagnosis.second_look import MOST_CHANNELS, channel_group, diagnose_pairs
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.remote_reads import read_dense, reads_of
from aclcmp.orchestrator.compare.schedule import split
from aclcmp.orchestrator.core.diagnosis import HISTOGRAM_BINS, HISTOGRAM_LOWEST, Look, Suspect
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats, RowSums
from tests.compare.reference import values as decoded
from tests.compare.test_pair import random_bits
from tests.compare.test_pair import split as split_at_random

KEY = LabelKey(0, "x", 0)


class Stored:
    """Tensors one after the other in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def source(self, bits: np.ndarray, dtype: str, rank: int = 0) -> Source:
        offset = self.path.stat().st_size
        with self.path.open("ab") as out:
            out.write(np.ascontiguousarray(bits).tobytes())
        return Source(str(self.path), offset, dtype, bits.shape, rank=rank)


def pair_of(golden: Source, actual: Source, region: Region | None = None, whole: tuple[int, ...] | None = None) -> Pair:
    """A pair of the same region of both sides."""
    region = region or Region.whole(golden.shape)
    return Pair(KEY, actual.rank, golden, region, actual, region, whole or golden.shape, region, "same shape")


def expected_sums(
    x: np.ndarray, y: np.ndarray, region: Region, whole: tuple[int, ...]
) -> dict[int, tuple[float, float]]:
    """Sums of x^2 and d^2 by group of channels, in plain numpy; x and y are values of the region."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
    width = region.shape[-1] if region.shape else 1
    x, y = (side.reshape(-1, width, x.size // max(region.size, 1)) for side in (x, y))
    found: dict[int, tuple[float, float]] = {}
    for i in range(width):
        group = ((region.start[-1] if region.start else 0) + i) // channel_group(whole)
        xx, dd = found.get(group, (0.0, 0.0))
        found[group] = xx + float((x[:, i] ** 2).sum()), dd + float(((y[:, i] - x[:, i]) ** 2).sum())
    return found


@st.composite
def cases(draw):
    """Draw (golden bits, actual bits, golden type, actual type, generator)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x_name = draw(st.sampled_from(sorted(DTYPES)))
    y_name = draw(st.sampled_from(sorted(name for name in DTYPES if DTYPES[name].kind is DTYPES[x_name].kind)))
    shape = tuple(draw(st.lists(st.integers(1, 12), max_size=4)))
    flavour = draw(st.sampled_from(["ordinary", "any bits", "few values", "offset"]))
    return random_bits(rng, x_name, shape, flavour), random_bits(rng, y_name, shape, flavour), x_name, y_name, rng


@settings(max_examples=150)
@given(cases())
def test_parts_add_up_to_numpys_sums(tmp_path_factory, case) -> None:
    x_bits, y_bits, x_name, y_name, rng = case
    stored = Stored(tmp_path_factory.mktemp("stored") / "tensors")
    golden, actual = stored.source(x_bits, x_name), stored.source(y_bits, y_name)
    shape = x_bits.shape
    regions = split_at_random(rng, Region.whole(shape), 3)
    pairs = tuple(pair_of(golden, actual, region) for region in regions)
    with np.errstate(all="ignore"):
        x, y = decoded(x_bits, x_name), decoded(y_bits, y_name)
        expected = expected_sums(x, y, Region.whole(shape), shape)
        finite = np.isfinite(x) & np.isfinite(y)
        errors = np.abs(y - x)[finite & (x != y)]
        rms = 0.37
        bins = np.floor(np.log2(errors / rms)) - HISTOGRAM_LOWEST
    look = diagnose_pairs(Suspect(pairs, rms))
    assert look.channels.index.tolist() == sorted(expected)
    for group, xx, dd in zip(look.channels.index, look.channels.sum_xx, look.channels.sum_dd, strict=True):
        assert (xx, dd) == pytest.approx(expected[int(group)], rel=1e-9)
    counts = np.bincount(np.clip(bins, 0, HISTOGRAM_BINS - 1).astype(int), minlength=HISTOGRAM_BINS)
    assert look.histogram.tolist() == counts.tolist()
    assert look.fits == ()


def test_many_channels_are_summed_in_groups(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((3, MOST_CHANNELS * 2 + 5)).astype(np.float32)
    y = x + random.standard_normal(x.shape).astype(np.float32)
    stored = Stored(tmp_path / "tensors")
    pair = pair_of(stored.source(x, "float32"), stored.source(y, "float32"), Region((0, 7), (3, 8000)))
    look = diagnose_pairs(Suspect((pair,), 1.0))
    expected = expected_sums(x[:, 7:8007].astype(float), y[:, 7:8007].astype(float), pair.region, x.shape)
    assert look.channels.group == channel_group(x.shape) == 4
    assert dict(zip(look.channels.index.tolist(), look.channels.sum_dd, strict=True)) == pytest.approx(
        {group: dd for group, (_, dd) in expected.items()}
    )


def test_windows_and_sums_over_ranks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 300))
    parts = [random.standard_normal(x.shape) for _ in range(2)]
    parts.append(x * 1.5 - sum(parts))
    stored = Stored(tmp_path / "tensors")
    golden = stored.source(x, "float64")
    sources = [stored.source(part, "float64", rank) for rank, part in enumerate(parts)]
    pair = replace(pair_of(golden, sources[0]), more_actual=tuple(sources[1:]))
    stats = read_pair_stats(pair)
    look = diagnose_pairs(Suspect((pair,), 1.0, excerpt_of([pair], stats.rows)))
    assert look.channels.sum_dd == pytest.approx((0.25 * x**2).sum(0), rel=1e-9)
    assert look.fits[0].kind == "scale" and "1.5 times" in look.fits[0].words


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e5m2", "complex64", "int64"])
def test_what_was_fetched_gives_the_same(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    stored = Stored(tmp_path / "tensors")
    golden, actual = (stored.source(random_bits(rng, name, (40, 50), "ordinary"), name) for _ in range(2))
    pair = pair_of(golden, actual, Region((3, 10), (30, 33)))
    excerpt = excerpt_of([pair], RowSums.empty())
    fetched = {read: read_dense(read) for read in reads_of(pair)}
    here, there = (
        diagnose_pairs(Suspect((pair,), 1.0, excerpt)),
        diagnose_pairs(Suspect((pair,), 1.0, excerpt), fetched),
    )
    assert here.channels.sum_dd.tolist() == there.channels.sum_dd.tolist()
    assert here.histogram.tolist() == there.histogram.tolist()
    assert here.fits == there.fits


def test_an_excerpt_is_where_the_error_is_and_whole_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 400, 64)).astype(np.float32)
    y = x.copy()
    y[0, 317] *= 2
    stored = Stored(tmp_path / "tensors")
    pair = pair_of(stored.source(x, "float32"), stored.source(y, "float32"))
    (found,) = excerpt_of([pair], read_pair_stats(pair).rows, most=64 * 20)
    assert found.region.shape == (1, 20, 64)
    assert found.region.start[1] <= 317 < found.region.end[1]
    assert found.region == found.golden_region == found.actual_region
    look = diagnose_pairs(Suspect((pair,), 1.0, (found,)))
    assert look.fits[0].words.startswith("in 1,280 of 25,600 values, where the error is largest: ")


def test_the_slices_of_a_fused_projection_are_one_box(tmp_path: Path) -> None:
    """Of [q0 q1 k0 k1] a rank holds [q1 k1]; there the two are swapped."""
    x = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    local = np.concatenate([x[:, 48:64], x[:, 16:32]], 1)
    stored = Stored(tmp_path / "tensors")
    golden, actual = stored.source(x, "float32"), stored.source(local, "float32", 1)
    pairs = [
        Pair(KEY, 1, golden, whole, actual, Region((0, at), (32, 16)), (32, 64), whole, "Shard")
        for at, whole in ((0, Region((0, 16), (32, 16))), (16, Region((0, 48), (32, 16))))
    ]
    excerpt = excerpt_of(pairs, RowSums.empty())
    assert len(excerpt) == 2
    (fit, *_) = diagnose_pairs(Suspect(tuple(pairs), 1.0, excerpt)).fits
    assert fit.explained == 1.0 and fit.kind in ("permuted channels", "shifted channels")


@settings(max_examples=100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 300), st.integers(0, 2**32))
def test_excerpts_are_bounded(shape: list[int], most: int, seed: int) -> None:
    source = Source("f", 0, "float32", tuple(shape))
    pair = pair_of(source, source)
    rows = int(np.prod(shape[:-1]))
    errors = np.random.default_rng(seed).random(rows)
    found = excerpt_of([pair], RowSums(1, np.arange(rows), errors, errors), most)
    assert len(found) == 1 and 1 <= found[0].region.size <= most
    if pair.region.size <= most:
        assert found[0] == pair


def test_complex_elements_have_parts(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((32, 16, 2)).astype(np.float32).view(np.complex64)[..., 0]
    stored = Stored(tmp_path / "tensors")
    pair = pair_of(stored.source(x, "complex64"), stored.source(2 * x, "complex64"))
    assert DTYPES["complex64"].kind is Kind.COMPLEX
    look = diagnose_pairs(Suspect((pair,), 1.0, excerpt_of([pair], RowSums.empty())))
    assert look.channels.sum_dd == pytest.approx((np.abs(x.astype(complex)) ** 2).sum(0))
    assert look.histogram.sum() == 2 * x.size and look.fits[0].kind == "scale"


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"1234")
    source = Source(str(tmp_path / "short"), 0, "float32", (4, 4))
    actor = CompareActor.__new__(CompareActor)
    told = actor.look(Suspect((pair_of(source, source),), 1.0))
    assert isinstance(told, str) and "truncated" in told


@pytest.mark.ray
def test_real_actors_look_at_whole_and_split_pairs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aclcmp.orchestrator.compare.schedule.SPLIT_BYTES", 64 << 10)
    x = np.random.default_rng(0).standard_normal((256, 128)).astype(np.float32)
    stored = Stored(tmp_path / "tensors")
    golden = stored.source(x, "float32")
    pairs = [pair_of(golden, stored.source(y, "float32", rank)) for rank, y in enumerate((2 * x, np.roll(x, 1, 0)))]
    pairs.append(replace(pairs[0], actual=replace(pairs[0].actual, path=str(tmp_path / "gone")), rank=2))
    assert len(split(pairs[0])) > 1
    suspects = []
    for pair in pairs:
        stats = read_pair_stats(pairs[0])
        assert isinstance(stats, PairStats)
        suspects.append(Suspect((pair,), 1.0, excerpt_of([pair], stats.rows)))
    looks = look_again(ActorPool(cluster.nodes), suspects, FileLocations(cluster.driver_node_id), inf, lambda _: None)
    first, second = looks[KEY, 0], looks[KEY, 1]
    assert isinstance(first, Look) and isinstance(second, Look)
    assert first.channels.sum_dd == pytest.approx((x.astype(float) ** 2).sum(0))
    assert first.histogram.sum() == x.size
    assert (first.fits[0].kind, second.fits[0].kind) == ("scale", "shifted rows")
    assert "No such file" in str(looks[KEY, 2])


@pytest.mark.ray
def test_an_interrupted_look_keeps_what_is_done(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    x = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    stored = Stored(tmp_path / "tensors")
    golden = stored.source(x, "float32")
    suspects = [Suspect((pair_of(golden, stored.source(2 * x, "float32", rank)),), 1.0) for rank in range(40)]
    wait, calls = ray.wait, iter(range(100))

    def interrupted(*args, **kwargs):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return wait(*args, **kwargs)

    monkeypatch.setattr(ray, "wait", interrupted)
    looks = look_again(ActorPool(cluster.nodes), suspects, FileLocations(cluster.driver_node_id), inf, lambda _: None)
    assert len(looks) == 5 and all(isinstance(look, Look) for look in looks.values())


@pytest.mark.ray
def test_what_lies_on_another_node_travels(cluster: Cluster, tmp_path: Path) -> None:
    from tests.compare.actors.test_actor_pool_nodes import added_node

    x = np.random.default_rng(0).standard_normal((256, 128)).astype(np.float32)
    stored = Stored(tmp_path / "tensors")
    actuals = [stored.source(2 * x, "float32", rank) for rank in (1, 2)]
    golden = replace(stored.source(x, "float32"), rank=0)
    pairs = [pair_of(golden, actual) for actual in actuals]
    excerpt = excerpt_of(pairs[:1], RowSums.empty())
    with added_node() as (node, _):
        nodes = {0: cluster.driver_node_id, 1: node.node_id, 2: cluster.driver_node_id}
        pool = ActorPool([*cluster.nodes, node])
        looks = look_again(
            pool,
            [Suspect((pairs[0],), 1.0, excerpt), Suspect((pairs[1],), 1.0)],
            FileLocations(cluster.driver_node_id, nodes),
            inf,
            lambda _: None,
        )
    for rank in (1, 2):
        look = looks[KEY, rank]
        assert isinstance(look, Look)
        assert look.channels.sum_dd == pytest.approx((x.astype(float) ** 2).sum(0))
    first = looks[KEY, 1]
    assert isinstance(first, Look) and first.fits[0].kind == "scale"

"""Pairs whose sides lie on different nodes: slices travel, failures there are told, and what needs nothing goes on."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from aclcmp.labeling.shard.summarise import summarise
from aclcmp.orchestrator.cluster.cluster import Cluster, Node, _survey
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.cluster.ray_start import authentication
from aclcmp.orchestrator.compare import schedule
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.comparison import compare_pairs
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.remote_reads import Fetched, Read
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats
from tests.compare.test_pair import random_bits
from tests.processes import PATIENCE, command_of, descendants, kill, living, memory_growth

pytestmark = pytest.mark.ray


@contextmanager
def added_node() -> Iterator[tuple[Node, subprocess.Popen[bytes]]]:
    """A further node of this process's Ray, on this machine, and the process group that it is."""
    import ray

    before = {node.node_id for node in _survey()[1]}
    address = ray.get_runtime_context().gcs_address
    command = [str(Path(sys.executable).with_name("ray")), "start", f"--address={address}", "--num-cpus=2", "--block"]
    process = subprocess.Popen(
        [*command, "--object-store-memory=100000000"],
        env={**os.environ, **authentication(), "RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + PATIENCE
        while not (new := [node for node in _survey()[1] if node.node_id not in before]):
            assert process.poll() is None and time.monotonic() < end, "the second node did not start"
            time.sleep(0.1)
        yield new[0], process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
        noted = Path("/tmp/ray/ray_current_cluster")  # what "auto" would mean from now on
        with suppress(FileNotFoundError):
            if noted.read_text() == address:
                noted.unlink()


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[tuple[Node, Node]]:
    """The driver's node and another one: even ranks ran on the first, odd ones on the second."""
    with added_node() as (far, _):
        yield cluster.nodes[0], far


KILLS_READER, KILLS_ACTOR = (7, 7), (6, 6)
"""Regions of these shapes stand for what ends a process, as a file that is truncated meanwhile or want of memory."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where actors write down which file they opened on which node."""
    return tmp_path_factory.mktemp("log") / "opened"


@pytest.fixture(scope="module")
def pool(nodes: tuple[Node, Node], log: Path) -> ActorPool:
    """One pool for all tests, of actors that write down what they open, and that die of some shapes."""
    killers = KILLS_READER, KILLS_ACTOR

    class Probed(CompareActor):
        def __init__(self) -> None:
            CompareActor.__init__(self)
            import ray

            from aclcmp.orchestrator.compare import pair, remote_reads
            from aclcmp.orchestrator.compare.kernels import memory_map

            node = ray.get_runtime_context().get_node_id()

            def opened(source: Source) -> memory_map.MappedBits:
                with log.open("a") as file:
                    file.write(f"{node} {source.rank} {source.path}\n")
                return memory_map.open_bits(source)

            remote_reads.open_bits = pair.open_bits = opened  # type: ignore[attr-defined]

        def read(self, reads: Sequence[Read]) -> tuple[int, Fetched]:
            if any(region.shape == killers[0] for _, region in reads):
                os._exit(1)
            return CompareActor.read(self, reads)

        def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
            if any(pair.region.shape == killers[1] for pair in pairs):
                os._exit(1)
            return CompareActor.compare(self, pairs, *fetched)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aclcmp.orchestrator.compare.actors.actor_pool.CompareActor", Probed)
        return ActorPool(nodes)


class Spread:
    """Tensors in files, by rank, and a pool to compare them on two nodes."""

    def __init__(self, folder: Path, nodes: tuple[Node, Node], pool: ActorPool) -> None:
        self.nodes = nodes
        self.pool = pool
        self.advanced: list[tuple[int, int]] = []
        self._folder = folder
        self._numbers = itertools.count()
        self._random = np.random.default_rng(0)

    @property
    def places(self) -> FileLocations:
        return FileLocations(self.nodes[0].node_id, {rank: self.nodes[rank % 2].node_id for rank in range(2000)})

    def bits(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        return random_bits(self._random, dtype, shape, "ordinary")

    def store(self, rank: int, bits: np.ndarray, dtype: str) -> Source:
        path = self._folder / f"{next(self._numbers)}.rank{rank}"
        path.write_bytes(b"\xff" * 24 + bits.tobytes())
        return Source(str(path), 24, dtype, bits.shape, rank=rank)

    def pair(
        self, label: str, golden: Sequence[Source], actual: Sequence[Source], region: Region | None = None
    ) -> Pair:
        """The pair of `region` of golden and all of actual."""
        shape = golden[0].shape
        region = region or Region.whole(shape)
        return Pair(
            LabelKey(0, label, 0), actual[0].rank, golden[0], region, actual[0], Region.whole(region.shape), shape,
            region, "", tuple(golden[1:]), tuple(actual[1:]),
        )  # fmt: skip

    def simple(self, label: str, golden_rank: int, actual_rank: int, shape: tuple[int, ...] = (4, 5)) -> Pair:
        """A pair of two whole tensors."""
        golden, actual = (
            [self.store(rank, self.bits("float32", shape), "float32")] for rank in (golden_rank, actual_rank)
        )
        return self.pair(label, golden, actual)

    def compare(self, pairs: Sequence[Pair]) -> list[PairStats | str]:
        outcomes = compare_pairs(self.pool, pairs, self.places, lambda *done: self.advanced.append(done))
        assert len(outcomes) == len(pairs)
        return [outcomes[pair.key, pair.rank] for pair in pairs]


@pytest.fixture
def spread(tmp_path: Path, nodes: tuple[Node, Node], pool: ActorPool) -> Spread:
    return Spread(tmp_path, nodes, pool)


def cases(spread: Spread) -> Iterator[Pair]:
    """Pairs of many kinds, each with something on either node."""
    for dtype in ("float32", "bfloat16", "float64", "float8_e4m3fn", "int64", "bool", "complex64", "complex32"):
        whole = spread.bits(dtype, (23, 40))
        golden = spread.store(0, whole, dtype)
        for rank in range(4):
            columns = Region((0, 10 * rank), (23, 10))
            local = whole[:, 10 * rank : 10 * rank + 10].copy()
            local[::7] = whole[::7, :10]
            yield spread.pair(f"columns {dtype}", [golden], [spread.store(rank, local, dtype)], columns)
        for number, shape in enumerate(((), (0,), (3, 0, 2))):
            left, right = ([spread.store(rank, spread.bits(dtype, shape), dtype)] for rank in (0, 1))
            yield spread.pair(f"shape {number} {dtype}", left, right)
        summands = [spread.store(rank, spread.bits(dtype, (23, 40)), dtype) for rank in range(4)]
        sums = [spread.store(rank, spread.bits(dtype, (9, 11)), dtype) for rank in (3, 2)]
        yield spread.pair(f"sums {dtype}", summands, sums, Region((5, 20), (9, 11)))
    whole = spread.bits("float32", (12, 9))
    for rank in (0, 1):
        other = spread.store(rank, whole.astype(np.float64), "float64")
        yield spread.pair(f"types {rank}", [spread.store(1 - rank, whole, "float32")], [other])
        packed = summarise(whole.reshape(-1).view(np.uint8), "float32", whole.shape, sketch=True).pack()
        kept = spread.store(rank, packed, "float64")
        kept = replace(kept, dtype="float32", shape=whole.shape, capture="fingerprint", nbytes=packed.nbytes)
        yield spread.pair(f"summary {rank}", [kept], [spread.store(1 - rank, whole + 1, "float32")])


def test_slices_travel(spread: Spread, log: Path) -> None:
    pairs = list(cases(spread))
    for pair, result in zip(pairs, spread.compare(pairs), strict=True):
        assert repr(result) == repr(read_pair_stats(pair)), pair.key
    assert sum(size for _, size in spread.advanced) == sum(map(schedule.pair_bytes, pairs))
    opened = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    assert {path for _, _, path in opened} == {source.path for pair in pairs for source in pair.sources}
    assert all(node == spread.places.home(int(rank)) for node, rank, _ in opened)


def test_a_large_slice_travels_in_parts_and_memory_stays_low(spread: Spread) -> None:
    shape = (6_000, 8_192)
    golden = spread.store(1, spread.bits("float32", shape), "float32")  # 188 MiB
    local = np.zeros((6_000, 4_096), np.float32)
    pairs = [
        spread.pair("x", [golden], [spread.store(rank, local, "float32")], Region((0, 4_096), local.shape))
        for rank in (0, 2)
    ]
    spread.compare([spread.simple("start", 1, 0)])  # the actors are there
    actors = living(lambda each: "ray::Probed" in command_of(each), descendants())
    assert len(actors) >= 4
    with memory_growth(actors, 0.005) as growth:
        results = spread.compare(pairs)
    assert len(spread.advanced) >= 12
    tensor = np.fromfile(golden.path, np.float32, offset=24).reshape(shape)[:, 4_096:].astype(np.float64)
    for result in results:
        assert isinstance(result, PairStats) and (result.n, result.max_y) == (local.size, 0)
        assert result.sum_xx == result.sum_dd == pytest.approx((tensor**2).sum(), rel=1e-6)
        assert result.rows.sum_xx == pytest.approx((tensor**2).sum(axis=1), rel=1e-5)
    # A block as it is read and as it lies in the store, windows of both files, and what Ray needs to send.
    assert 0 < max(growth) < 3 * schedule.FETCH_BYTES + (16 << 20)


def test_what_cannot_be_read_there_is_told_and_the_rest_compared(spread: Spread) -> None:
    pairs = [spread.simple(f"x{i}", i % 2, i // 2 % 2) for i in range(12)]
    gone = [pairs[5], pairs[6]]
    Path(pairs[5].golden.path).unlink()  # rank 1's, needed by rank 0
    os.truncate(pairs[6].golden.path, 30)  # rank 0's, needed by rank 1
    host = socket.gethostname()
    for pair, result in zip(pairs, spread.compare(pairs), strict=True):
        assert isinstance(result, str) == (pair in gone), (pair, result)
        if isinstance(result, str):
            assert result.startswith(f"host {host}: {pair.golden.path}: ")


def test_what_kills_a_process_takes_nothing_along(spread: Spread) -> None:
    shapes = {9: KILLS_READER, 60: KILLS_ACTOR, 150: KILLS_ACTOR}
    pairs = [spread.simple(f"x{i}", i % 2, i // 2 % 2, shapes.get(i, (4, 5))) for i in range(200)]
    results = spread.compare(pairs)
    assert [number for number, result in enumerate(results) if isinstance(result, str)] == list(shapes)
    host = spread.nodes[1].host
    assert str(results[9]).startswith(f"host {host}: {pairs[9].golden.path} cannot be fetched: ")
    for number in (60, 150):
        assert str(results[number]).startswith("its compare actor on host ") and "died" in str(results[number])


def test_interrupt_keeps_what_is_done(spread: Spread) -> None:
    one = spread.simple("x", 1, 0)
    pairs = [replace(one, rank=rank) for rank in range(1500)]

    def advance(pairs: int, size: int) -> None:
        raise KeyboardInterrupt

    assert 0 < len(compare_pairs(spread.pool, pairs, spread.places, advance)) < 1500
    assert all(isinstance(result, PairStats) for result in spread.compare(pairs))  # as if nothing had been


def test_a_node_that_dies_beside_one_that_sees_the_same_files(spread: Spread) -> None:
    with added_node() as (third, process):
        ids = spread.nodes[0].node_id, spread.nodes[1].node_id, third.node_id
        homes = {rank: ids[rank % 3] for rank in range(6)}
        places = FileLocations(ids[0], homes, {node: frozenset(ids[1:]) for node in ids[1:]})
        pool = ActorPool([*spread.nodes, third])
        pairs = [spread.simple(f"x{i}", i % 6, i // 6 % 6) for i in range(36)]
        for post in pool.comparers(third.node_id) + pool.readers(third.node_id):
            assert post.actor
        kill([*descendants(process.pid), psutil.Process(process.pid)])
        outcomes = compare_pairs(pool, pairs, places, lambda *done: spread.advanced.append(done))
        for pair in pairs:
            assert repr(outcomes[pair.key, pair.rank]) == repr(read_pair_stats(pair)), pair
        assert sum(count for count, _ in spread.advanced) == len(pairs)


def test_a_node_that_dies(spread: Spread) -> None:
    with added_node() as (third, process):
        spread.nodes = spread.nodes[0], third
        spread.pool = ActorPool(spread.nodes)
        pairs = [spread.simple(f"x{i}", i % 2, i // 2 % 2) for i in range(12)]
        assert all(isinstance(result, PairStats) for result in spread.compare(pairs))
        kill([*descendants(process.pid), psutil.Process(process.pid)])
        for pair, result in zip(pairs, spread.compare(pairs), strict=True):
            if pair.actual.rank == 1:
                assert str(result).startswith(f"its compare actor on host {third.host} died: ")
            elif pair.golden.rank == 1:
                assert str(result).startswith(f"host {third.host}: {pair.golden.path} cannot be fetched: ")
            else:
                assert isinstance(result, PairStats)

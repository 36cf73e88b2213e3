"""Real compare actors: parts of split pairs are merged, dead actors replaced, unreadable files told."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from aclcmp.orchestrator.cluster import Cluster
from aclcmp.orchestrator.compare.actor import CompareActor
from aclcmp.orchestrator.compare.crew import Crew, nodes_of_ranks
from aclcmp.orchestrator.compare.fetch import Fetched
from aclcmp.orchestrator.compare.schedule import SPLIT_BYTES
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.plan.regions import LabelKey, Pair, Region, Source

pytestmark = pytest.mark.ray


def pair_of(path: Path, rank: int, shape: tuple[int, ...] = (4, 4)) -> Pair:
    """A pair whose sides lie one after the other in a file."""
    golden = Source(str(path), 0, "float32", shape)
    actual = Source(str(path), int(np.prod(shape)) * 4, "float32", shape)
    whole = Region.whole(shape)
    return Pair(LabelKey(0, "x", 0), rank, golden, whole, actual, whole, shape, whole, "same shape")


def write(path: Path, shape: tuple[int, ...] = (4, 4)) -> None:
    golden = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path.write_bytes(golden.tobytes() + (golden * np.float32(2)).tobytes())


def test_a_split_pair_has_the_statistics_of_the_whole(cluster: Cluster, tmp_path: Path) -> None:
    shape = (SPLIT_BYTES // 8 // 1024 * 3, 1024)
    write(tmp_path / "large", shape)
    done: list[tuple[int, int]] = []
    crew = Crew(cluster.nodes)
    pair = pair_of(tmp_path / "large", 0, shape)
    outcomes = crew.compare([pair], lambda rank: cluster.driver_node_id, lambda pairs, size: done.append((pairs, size)))
    stats = outcomes[pair.key, 0]
    assert isinstance(stats, PairStats)
    assert stats.n == shape[0] * shape[1]
    assert stats.sum_dd == pytest.approx(stats.sum_xx, rel=1e-6)
    assert len(done) >= 3 and sum(pairs for pairs, _ in done) == 1
    assert sum(size for _, size in done) == 8 * stats.n


def test_what_cannot_be_read_is_told_and_the_rest_compared(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "good")
    (tmp_path / "short").write_bytes(b"1234")
    pairs = [pair_of(tmp_path / name, rank) for rank, name in enumerate(("good", "short", "missing"))]
    outcomes = Crew(cluster.nodes).compare(pairs, lambda rank: cluster.driver_node_id, lambda *_: None)
    told = [outcomes[pair.key, pair.rank] for pair in pairs]
    assert isinstance(told[0], PairStats)
    assert isinstance(told[1], str) and "truncated" in told[1]
    assert isinstance(told[2], str) and "No such file" in told[2]


def test_killed_actors_are_replaced(cluster: Cluster, tmp_path: Path) -> None:
    shape = (SPLIT_BYTES // 8 // 1024, 1024)
    write(tmp_path / "data", shape)
    pairs = [pair_of(tmp_path / "data", rank, shape) for rank in range(8)]
    crew = Crew(cluster.nodes)
    crew.read_indices(tmp_path)  # the actors are there
    killed: list[int] = []

    def kill_one() -> None:
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] and "ray::CompareActor" in process.info["cmdline"][0]:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                return

    def advance(pairs: int, size: int) -> None:
        if not killed:
            kill_one()

    outcomes = crew.compare(pairs, lambda rank: cluster.driver_node_id, advance)
    assert killed
    assert len(outcomes) == 8
    assert all(isinstance(outcome, PairStats) for outcome in outcomes.values())


def test_interrupt_keeps_what_is_done(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "data")
    pairs = [pair_of(tmp_path / "data", rank) for rank in range(2000)]

    def advance(pairs: int, size: int) -> None:
        raise KeyboardInterrupt

    outcomes = Crew(cluster.nodes).compare(pairs, lambda rank: cluster.driver_node_id, advance)
    assert 0 < len(outcomes) < 2000


def test_places(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    places = {0: (node.node_id, "", ""), 1: ("gone", node.ip, node.host), 2: ("gone", "10.9.9.9", "elsewhere")}
    assert set(nodes_of_ranks(places, cluster.nodes).values()) == {node.node_id}


def test_a_pair_that_kills_its_actor_takes_no_other_along(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(CompareActor):
        """Stands for a pair whose reading ends the process, e.g. for want of memory."""

        def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
            if any(pair.rank == 100 for pair in pairs):
                os._exit(1)
            return CompareActor.compare(self, pairs, *fetched)

    monkeypatch.setattr("aclcmp.orchestrator.compare.crew.CompareActor", Fragile)
    write(tmp_path / "data")
    pairs = [pair_of(tmp_path / "data", rank) for rank in range(300)]
    outcomes = Crew(cluster.nodes).compare(pairs, lambda rank: cluster.driver_node_id, lambda *_: None)
    told = [outcomes[pair.key, pair.rank] for pair in pairs]
    assert [rank for rank, outcome in enumerate(told) if isinstance(outcome, str)] == [100]
    assert "died" in str(told[100])

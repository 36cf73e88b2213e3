"""Real compare actors: parts of split pairs are merged, dead actors replaced, unreadable files told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import inf
from pathlib import Path

import numpy as np
import psutil
import pytest

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.comparison import compare_pairs, count_ties
from aclcmp.orchestrator.compare.actors.second_looks import look_again
from aclcmp.orchestrator.compare.remote_reads import Fetched
from aclcmp.orchestrator.compare.schedule import SPLIT_BYTES
from aclcmp.orchestrator.core.diagnosis import Look, Suspect, TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.shards import FoundShards
from tests.compare.stored_pairs import pair_of, write
from tests.labeling.shard.test_damage import write as write_shard
from tests.processes import command_of, descendants, kill, living

pytestmark = pytest.mark.ray


def test_a_split_pair_has_the_statistics_of_the_whole(cluster: Cluster, tmp_path: Path) -> None:
    shape = (SPLIT_BYTES // 8 // 1024 * 3, 1024)
    write(tmp_path / "large", shape)
    done: list[tuple[int, int]] = []
    pool = ActorPool(cluster.nodes)
    pair = pair_of(tmp_path / "large", 0, shape)
    outcomes = compare_pairs(
        pool, [pair], FileLocations(cluster.driver_node_id), lambda pairs, size: done.append((pairs, size))
    )
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
    outcomes = compare_pairs(ActorPool(cluster.nodes), pairs, FileLocations(cluster.driver_node_id), lambda *_: None)
    told = [outcomes[pair.key, pair.rank] for pair in pairs]
    assert isinstance(told[0], PairStats)
    assert isinstance(told[1], str) and "truncated" in told[1]
    assert isinstance(told[2], str) and "No such file" in told[2]


def test_killed_actors_are_replaced(cluster: Cluster, tmp_path: Path) -> None:
    shape = (SPLIT_BYTES // 8 // 1024, 1024)
    write(tmp_path / "data", shape)
    pairs = [pair_of(tmp_path / "data", rank, shape) for rank in range(8)]
    pool = ActorPool(cluster.nodes)
    assert pool.comparers(cluster.driver_node_id)  # the actors are started
    killed: list[psutil.Process] = []

    def advance(pairs: int, size: int) -> None:
        if not killed:
            killed.append(living(lambda each: "ray::CompareActor" in command_of(each), descendants())[0])
            kill(killed)

    outcomes = compare_pairs(pool, pairs, FileLocations(cluster.driver_node_id), advance)
    assert killed
    assert len(outcomes) == 8
    assert all(isinstance(outcome, PairStats) for outcome in outcomes.values())


def test_interrupt_keeps_what_is_done(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "data")
    pairs = [pair_of(tmp_path / "data", rank) for rank in range(2000)]

    def advance(pairs: int, size: int) -> None:
        raise KeyboardInterrupt

    outcomes = compare_pairs(ActorPool(cluster.nodes), pairs, FileLocations(cluster.driver_node_id), advance)
    assert 0 < len(outcomes) < 2000


def test_a_pair_that_kills_its_actor_takes_no_other_along(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(CompareActor):
        """Stands for a pair whose reading ends the process, e.g. for want of memory."""

        def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
            if any(pair.rank == 100 for pair in pairs):
                os._exit(1)
            return CompareActor.compare(self, pairs, *fetched)

    monkeypatch.setattr("aclcmp.orchestrator.compare.actors.actor_pool.CompareActor", Fragile)
    write(tmp_path / "data")
    pairs = [pair_of(tmp_path / "data", rank) for rank in range(300)]
    outcomes = compare_pairs(ActorPool(cluster.nodes), pairs, FileLocations(cluster.driver_node_id), lambda *_: None)
    told = [outcomes[pair.key, pair.rank] for pair in pairs]
    assert [rank for rank, outcome in enumerate(told) if isinstance(outcome, str)] == [100]
    assert "died" in str(told[100])


@pytest.mark.parametrize("always", [False, True])
def test_what_an_actor_left_undone_is_done_by_another_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """Of every call but `compare`, which has tests of its own: the first one kills its actor, or each one does."""
    died = tmp_path / "died"
    died.mkdir()

    def maybe_die(name: str) -> None:
        if always or not (died / name).exists():
            (died / name).touch()
            os._exit(1)

    class Mortal(CompareActor):
        def read_indices(self, run: RunDir, ranks: frozenset[int]) -> FoundShards:
            maybe_die("read_indices")
            return CompareActor.read_indices(self, run, ranks)

        def remove_dumps(self, files: Sequence[Path], within: Path) -> tuple[int, int]:
            maybe_die("remove_dumps")
            return CompareActor.remove_dumps(self, files, within)

        def count_ties(self, question: TieQuestion) -> int:
            maybe_die("count_ties")
            return CompareActor.count_ties(self, question)

        def look(self, suspect: Suspect, *fetched: Fetched) -> Look | str:
            maybe_die("look")
            return CompareActor.look(self, suspect, *fetched)

    monkeypatch.setattr("aclcmp.orchestrator.compare.actors.actor_pool.CompareActor", Mortal)
    node, run = cluster.driver_node_id, RunDir(tmp_path / "run", "r")
    pool, places = ActorPool(cluster.nodes), FileLocations(node)
    for folder in (run.shards, run.dumps):
        folder.mkdir(parents=True)
    write_shard(run.shards, ShardHeader("r", 3, 4, 0, 0, "host", 1, 0.0))
    (run.dumps / "x").write_bytes(b"1234")
    ids = np.arange(4, dtype=np.int64)
    (tmp_path / "ids").write_bytes(ids.tobytes() + ids[::-1].tobytes())
    (tmp_path / "scores").write_bytes(np.ones(16, np.float32).tobytes())
    whole, sources = Region.whole((4,)), [Source(str(tmp_path / "ids"), at, "int64", (4,)) for at in (0, 32)]
    pair = Pair(LabelKey(0, "ids", 0), 0, sources[0], whole, sources[1], whole, (4,), whole, "same shape")
    question = TieQuestion(pair, Source(str(tmp_path / "scores"), 0, "float32", (4, 4)), 1.0)
    write(tmp_path / "data")
    wrong = [Suspect((pair_of(tmp_path / "data", rank),), 1.0) for rank in range(6)]

    (found,) = pool.read_indices(run, {node: frozenset({3})}).values()
    removed = pool.remove_dumps({node: [run.dumps / "x"]}, run.dumps)
    ties = count_ties(pool, [question], places)
    looks = look_again(pool, wrong, places, inf, lambda _: None)
    assert len(looks) == 6
    if always:
        assert isinstance(found, str) and found.startswith("host ") and "is lost: " in found
        assert removed == (0, 0) and ties == {} and all("Died" in str(look) for look in looks.values())
    else:
        assert not isinstance(found, str) and [index.header.rank for index in found.indices] == [3]
        assert not found.unreadable
        assert removed == (1, 4) and ties == {(pair.key, 0): 4}
        assert all(isinstance(look, Look) for look in looks.values())
    assert {path.name for path in died.iterdir()} == {"read_indices", "remove_dumps", "count_ties", "look"}

"""Shards followed while they grow: what is found is what the finished shards give, pair by pair and bit by bit."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.live import interim_verdicts
from aclcmp.orchestrator.live.follower import lower_priority
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.planner import plan_run
from tests.live.growing import Follower, Rank

RANDOM = np.random.default_rng(0)


def label_layer(ranks: list[Rank], layer: int, task: int = 0, fault: int | None = None) -> None:
    """Each rank labels the whole golden tensor and its own slice of the actual one."""
    whole = RANDOM.standard_normal((16, 8 * len(ranks))).astype(np.float32)
    for number, (rank, part) in enumerate(zip(ranks, np.split(whole, len(ranks), axis=1), strict=True)):
        rank.label("pta", f"layers.{layer}.mlp", whole, task)
        rank.label("acl", f"layers.{layer}.mlp", part[::-1] if fault == number else part, task)


@pytest.mark.parametrize("ended", [True, False], ids=["sealed", "torn"])
def test_the_comparison_at_the_end_takes_all_from_what_was_followed(tmp_path: Path, ended: bool) -> None:
    ranks = [Rank(tmp_path, number, 3, segment_bytes=8_000) for number in range(3)]
    follower = Follower(tmp_path, 3)
    for layer in range(12):
        label_layer(ranks, layer % 6, layer // 6, fault=1 if layer == 3 else None)
        assert follower.step() == [f"layers.{layer % 6}.mlp"]
    for rank in ranks:
        rank.writer.close() if ended else rank.writer.detach()
    indices = [read_shard(rank.writer.files) for rank in ranks]
    assert len(ranks[0].writer.files.segments()) > 2  # they have rotated
    asked = follower.asked
    final = compare_and_resolve(plan_run(indices, 3), follower.compare)
    assert follower.asked == asked  # nothing had to be read again
    alone = compare_and_resolve(plan_run(indices, 3), Follower(tmp_path, 3).compare)
    assert final.plan.pairs == alone.plan.pairs and final.outcomes.keys() == alone.outcomes.keys()
    for name, stats in final.outcomes.items():
        assert isinstance(stats, PairStats)
        other = alone.outcomes[name]
        assert isinstance(other, PairStats)
        assert (stats.sum_dd, stats.sum_xx, stats.n_equal) == (other.sum_dd, other.sum_xx, other.n_equal)
        np.testing.assert_array_equal(stats.rows.sum_dd, other.rows.sum_dd)


def test_only_what_is_newly_ripe_is_planned(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    follower = Follower(tmp_path, 2)
    for layer in range(20):
        label_layer(ranks, layer)
        follower.step()
    assert follower.asked == 40 and follower.step() == []


def test_labels_of_several_processes_and_of_dumps_are_left_to_the_end(tmp_path: Path) -> None:
    first = Rank(tmp_path, 0, 1)
    follower = Follower(tmp_path, 1)
    values = np.ones(4, np.float32)
    first.label("pta", "x", values)
    first.label("acl", "x", values)
    first.label("pta", "low", values)
    first.label_dump("low", "op/outtensor0.bin")
    assert follower.step() == ["x"] and follower.findings.compared == 1
    second = Rank(tmp_path, 0, 1, started=2.0)
    assert second.writer.files.process == 1
    second.label("pta", "x", values)
    second.label("acl", "x", values)
    first.label("pta", "y", values)
    first.label("acl", "y", values)
    assert follower.step() == ["y"]
    assert follower.findings.compared == 1  # x counts on over both processes: what was found of it is off
    assert follower.ledger.positions[0].labels == 8


def test_a_task_without_end_is_held_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interim_verdicts, "MOST_KEPT", 20)
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    follower = Follower(tmp_path, 2)
    found, streams = follower.findings, follower.ledger.streams
    for layer in range(60):
        label_layer(ranks, layer, fault=0 if layer == 50 else None)
        follower.step()
        found.judge({0: streams.chains(0)})
    shown = found.as_judgement()
    assert shown is not None and len(shown.labels) <= 11
    assert found.put_away[Status.MATCH] + len(shown.labels) == found.compared
    assert found.first_own() == (LabelKey(0, "layers.50.mlp", 0), (0,))


def test_what_comes_too_late_takes_back_what_was_found(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    follower = Follower(tmp_path, 2)
    values = np.ones(4, np.float32)
    ranks[0].label("pta", "x", values)
    ranks[0].label("acl", "x", values)
    assert follower.step(0.0) == []
    assert follower.step(100.0) == ["x"] and follower.findings.compared == 1
    ranks[1].label("acl", "x", values + 1)
    assert follower.step(101.0) == [] and follower.findings.compared == 0


def test_verdicts_are_those_of_the_report_in_golden_order(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    follower = Follower(tmp_path, 2)
    found, streams = follower.findings, follower.ledger.streams
    assert found.as_judgement() is None and found.first_own() is None
    for task in range(3):
        for layer in range(5):
            label_layer(ranks, layer, task, fault=1 if (task, layer) == (1, 3) else None)
        follower.step()
        found.judge({number: streams.chains(number) for number in found.tasks})
        assert not found.tasks
        found.close_tasks(streams.oldest_task)
        assert found.first_own() == (None if task == 0 else (LabelKey(1, "layers.3.mlp", 0), (1,)))
    shown = found.as_judgement()
    assert shown is not None
    assert [label.key for label in shown.labels] == [
        LabelKey(t, f"layers.{n}.mlp", 0) for t in (1, 2) for n in range(5)
    ]
    assert found.put_away == {Status.MATCH: 5}  # task 0 is over and nothing was wrong in it
    assert found.compared == 15


def test_only_the_thread_that_compares_is_idle() -> None:
    found: list[tuple[int, int]] = []

    def work() -> None:
        lower_priority()
        found.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)))

    before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(os.SCHED_IDLE, 19)]
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before


def test_known_is_bounded_and_asks_again_what_failed(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    for layer in range(4):
        label_layer(ranks, layer)
    for rank in ranks:
        rank.writer.close()
    pairs = plan_run([read_shard(rank.writer.files) for rank in ranks], 2).pairs
    found: Outcomes = {(pair.key, pair.rank): read_pair_stats(pair) for pair in pairs}
    small = ResultCache(most_bytes=3 * 5000)
    small.keep(pairs, found)
    assert 0 < len(small) < len(pairs)
    taken, left = small.take(pairs)
    assert len(taken) + len(left) == len(pairs) and taken.keys().isdisjoint({(pair.key, pair.rank) for pair in left})
    failed = ResultCache()
    failed.keep(pairs, dict.fromkeys(found, "host b is lost"))
    assert failed.take(pairs) == ({}, pairs)


def test_what_a_rank_has_labelled_before_its_end_is_waited_for(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    follower = Follower(tmp_path, 2)

    def label(number: int, layer: int) -> None:
        for side in ("pta", "acl"):
            ranks[number].label(side, f"layers.{layer}.mlp", np.ones((4, 4), np.float32))

    label(0, 0)
    label(1, 0)
    label(0, 1)
    assert follower.step(1.0) == ["layers.0.mlp"]
    follower.ledger.note_exit(1, 2.0)
    follower.ledger.end(lambda rank: 1.5)  # the last look began before it ended
    assert follower.step(2.0) == []
    label(1, 1)
    assert follower.step(3.0) == ["layers.1.mlp"]  # with what it had labelled
    label(0, 2)
    follower.ledger.end(lambda rank: 2.5)  # a look that has told something: there may be more
    assert follower.step(3.0) == []
    follower.ledger.end(lambda rank: 3.5)
    assert follower.step(3.0) == ["layers.2.mlp"]
    follower.ledger.end(lambda rank: 4.5)


def test_a_run_of_many_tasks_is_remembered_in_bounded_memory(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    follower = Follower(tmp_path, 2)
    ledger = follower.ledger
    for task in range(30):
        label_layer(ranks, 0, task)
        ranks[0].label("pta", f"left.{task}", np.ones(4, np.float32), task)
        follower.step()
        ledger.forget()
    assert len(ledger._planned) <= 2 and len(ledger._waiting) <= 2
    label_layer(ranks, 0, 3)  # a rank that comes back to a task: what it adds is left to the end
    assert follower.step() == []
    ledger.forget()
    assert follower.findings.compared == 30

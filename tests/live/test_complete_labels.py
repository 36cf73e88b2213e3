"""When a label is ripe: both sides there, and every rank past it."""

import pytest

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.live import complete_labels
from aclcmp.orchestrator.live.complete_labels import APART_SECONDS, SILENT_SECONDS, LabelStreams


class Job:
    """Ranks that label, written as `0:g1 1:a2`: rank 0 sets the golden side of label 1, and so on."""

    def __init__(self, ranks: int) -> None:
        self.streams = LabelStreams(range(ranks))

    def does(self, words: str, now: float = 0.0, task: int = 0) -> list[str]:
        """Set labels, then return what is ripe."""
        for word in words.split():
            rank, _, what = word.partition(":")
            side = {"g": "pta", "a": "acl", "r": "ref"}[what[0]]
            self.streams.add(int(rank), LabelKey(task, what[1:], 0), side, now)
        return [key.label for key in self.streams.take_ripe(now, 100)]


def test_both_sides_on_all_ranks() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1 1:g1") == []
    assert job.does("1:a1") == ["1"]
    assert job.does("0:g2 1:g2 0:g3") == []


def test_a_rank_that_is_ahead_is_not_waited_for() -> None:
    job = Job(3)
    assert job.does("0:g1 0:a1 0:g2 0:a2 0:g3 0:a3 1:g1 1:a1 1:g2 1:a2 2:g1 2:a1") == ["1"]
    assert job.does("2:g2") == []
    assert job.does("2:a2") == ["2"]


def test_one_rank_labels_golden_for_all() -> None:
    job = Job(3)
    assert job.does("0:g1 0:a1 1:a1") == []
    assert job.does("2:a1") == ["1"]
    assert job.does("0:g2 1:a2 2:a2 0:a2 0:g3") == ["2"]


def test_a_golden_pass_then_an_actual_one() -> None:
    job = Job(2)
    assert job.does("0:g1 0:g2 0:g3 1:g1 1:g2") == []
    assert job.does("0:a1") == []  # rank 1 is still at its golden pass
    assert job.does("1:g3") == []
    assert job.does("1:a1 0:a2") == ["1"]
    assert job.does("1:a2") == ["2"]


def test_a_rank_that_leaves_a_label_out_is_past_it_with_the_next() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1 0:g2 0:a2 1:g1 1:a1") == ["1"]
    assert job.does("1:g3 1:a3") == []  # what 3 is beside 2 nobody has told yet
    assert job.does("0:g3 0:a3") == ["2", "3"]


def test_stages_of_a_pipeline_are_waited_for_a_little() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1", now=0.0) == []
    assert job.does("1:g9 1:a9", now=1.0) == []
    assert job.does("", now=APART_SECONDS) == ["1"]
    assert job.does("", now=1.0 + APART_SECONDS) == ["9"]


def test_a_silent_rank_is_waited_for_longer() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1", now=0.0) == []
    assert job.does("", now=SILENT_SECONDS - 1) == []
    assert job.does("", now=SILENT_SECONDS) == ["1"]


def test_a_rank_that_has_ended_is_not_waited_for() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1") == []
    job.streams.end(1)
    assert job.does("") == ["1"]


def test_tasks_come_one_after_the_other() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1 1:g1") == []
    assert job.does("1:g1 1:a1", task=1) == ["1"]  # rank 1 left task 0 without its actual side
    assert job.does("0:g1 0:a1", task=1) == ["1"]
    assert job.streams.oldest_task == 1
    assert job.streams.forget() == []
    assert job.streams.chains(0) == [] and job.streams.chains(1) == [[LabelKey(1, "1", 0)]] * 2


def test_references_are_waited_for_where_others_set_them() -> None:
    job = Job(2)
    assert job.does("0:g1 0:r1 0:a1 1:g1") == []
    assert job.does("1:r1") == []
    assert job.does("1:a1") == ["1"]


def test_one_side_is_never_ripe_and_is_let_go() -> None:
    job = Job(1)
    for number in range(50):
        assert job.does(f"0:g{number}", now=100.0 * number) == []
    job.streams.drop(LabelKey(0, "7", 0))
    assert job.does("0:a7") == []


def test_what_all_ranks_left_one_sided_is_let_go_and_order_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_labels, "_MOST_RIPE", 3)
    job = Job(2)
    assert job.does("0:g1 1:g1 0:g2 1:g2 0:a2 1:a2") == ["2"]
    assert job.streams.forget() == []
    assert job.does("0:g1 0:a1", task=1) == [] and job.streams.forget() == []  # rank 1 is still there
    assert job.does("1:g1 1:a1", task=1) == ["1"]
    assert job.streams.forget() == [LabelKey(0, "1", 0)]
    for number in range(2, 9):
        assert job.does(f"0:g{number} 0:a{number} 1:g{number} 1:a{number}", task=1) == [str(number)]
        job.streams.forget()
    assert [key.label for key in job.streams.chains(1)[0]] == ["6", "7", "8"]


def test_many_ranks_and_labels_are_taken_in_bounded_lots() -> None:
    ranks, labels = 64, 300
    many = LabelStreams(range(ranks))
    for number in range(labels):
        for rank in range(ranks):
            for side in ("pta", "acl"):
                many.add(rank, LabelKey(0, f"layers.{number}", 0), side, 0.0)
    taken = [len(many.take_ripe(0.0, 200)) for _ in range(3)]
    assert taken == [200, 100, 0]


def test_a_rank_that_is_not_heard_is_waited_for_without_end() -> None:
    job = Job(2)
    assert job.does("0:g1 0:a1", now=0.0) == []
    late = 10 * SILENT_SECONDS
    assert job.streams.take_ripe(late, 100, {1}) == []
    assert job.streams.take_ripe(late, 100, {0}) == [LabelKey(0, "1", 0)]

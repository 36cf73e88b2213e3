"""Which hosts say nothing, and whether the head answers: also for a driver that stood still itself."""

import socket
import threading

import pytest

from aclcmp.orchestrator.cluster import head_watch
from aclcmp.orchestrator.cluster.head_watch import FailureTimer, HeadWatch
from aclcmp.orchestrator.launch.silence import SILENT_SECONDS, Silence
from tests.processes import PATIENCE

NAMES = {"a": "host a", "b": "host b"}


def looks(silence: Silence, begin: float, end: float) -> list[str]:
    """All that is told by looks that are a second apart, while host a answers each time."""
    told = []
    for now in range(int(begin), int(end)):
        silence.heard("a", float(now))
        told += silence.new_sentences(float(now))
    return told


def test_a_silent_host_is_told_once_and_when_it_is_back() -> None:
    silence = Silence(NAMES, 0.0)
    (told,) = looks(silence, 0, 60)
    assert told.startswith(f"no word from host b for {SILENT_SECONDS:g} s")
    assert silence.heard("a", 60.0) is None
    assert silence.heard("b", 60.0) == "host b answers again" and silence.heard("b", 61.0) is None
    assert looks(silence, 61, 70) == []
    silence.over("b")
    assert looks(silence, 70, 100) == []


def test_a_driver_that_stood_still_takes_no_host_for_silent() -> None:
    silence = Silence(NAMES, 0.0)
    assert looks(silence, 0, 5) == []
    silence.heard("a", 65.0)  # Ctrl-Z for a minute; what host b has said meanwhile is not taken yet
    assert silence.new_sentences(65.0) == []
    assert looks(silence, 66, 70) == []
    assert len(looks(silence, 70, 90)) == 1  # it has died meanwhile


def test_the_head_is_not_lost_for_a_driver_that_slept() -> None:
    answers = FailureTimer(0.0)
    answers.add(1.0, answered=True)
    answers.add(61.0, answered=False)  # awake, and the network is not there yet
    assert 0 < answers.silent < head_watch.LOST_SECONDS
    answers.add(63.0, answered=True)
    assert answers.silent == 0.0


@pytest.mark.parametrize("seconds", [1.0, 6.0])
def test_the_head_is_lost_after_tries_that_all_fail(seconds: float) -> None:
    answers, now = FailureTimer(0.0), 0.0
    while answers.silent <= head_watch.LOST_SECONDS:
        now += seconds
        answers.add(now, answered=False)
    assert now <= head_watch.LOST_SECONDS + seconds


def test_a_head_that_answers_no_more_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "PERIOD", 0.01)
    told = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch = HeadWatch(f"127.0.0.1:{server.getsockname()[1]}", lost_after=0.05)
        server.accept()[0].close()
        watch.on_loss(told.set)
        assert not watch.lost
    assert told.wait(PATIENCE) and watch.lost
    watch.on_loss(None)
    late = threading.Event()
    watch.on_loss(late.set)
    assert late.is_set()  # at once


@pytest.mark.parametrize("gone", [False, True])
def test_a_raylet_that_refuses_connections_is_gone(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    monkeypatch.setattr(head_watch, "PERIOD", 0.01)
    told = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as raylet:
        head, here = (f"127.0.0.1:{each.getsockname()[1]}" for each in (server, raylet))
        watch = HeadWatch(head, here)
        watch.on_loss(told.set)
        raylet.accept()[0].close()
        if gone:
            raylet.close()
            assert told.wait(PATIENCE) and watch.lost and watch.words == head_watch.HERE_GONE
            watch.lose("something else")
            assert watch.words == head_watch.HERE_GONE
        watch.close()
    assert watch.lost is gone

"""Following a log over a connection that breaks; how a real one does is in test_submit.py."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from aclcmp.orchestrator.errors import LaunchError
from aclcmp.orchestrator.submit import follow
from aclcmp.orchestrator.submit.client import JobClient, JobState
from aclcmp.orchestrator.submit.follow import Choice


class Breaking:
    """A job server whose connections break after some characters, as long as there are any in `breaks`."""

    def __init__(self, text: str, breaks: list[int], *, over: bool = True) -> None:
        self.text, self.breaks, self.over = text, breaks, over

    def state(self, job_id: str) -> JobState:
        if not self.over:
            raise LaunchError("no answer")
        return JobState(job_id, "RUNNING" if self.breaks else "FAILED", 1, "", 0, 0, "", {})

    async def tail(self, job_id: str) -> AsyncIterator[str]:
        end = self.breaks.pop(0) if self.breaks else None
        for at in range(0, len(self.text[:end]), 7):
            yield self.text[:end][at : at + 7]
        if end is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


def followed(server: Breaking) -> tuple[JobState | Choice, str, list[str]]:
    shown: list[str] = []
    said: list[str] = []
    end = follow.follow(cast("JobClient", server), "job", shown.append, said.append, lambda: Choice.DETACH)
    return end, "".join(shown), said


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_AGAIN", 0.3)
    monkeypatch.setattr(follow, "_LOOK", 0.01)
    monkeypatch.setattr(follow, "_PATIENCE", 0.5)


def test_nothing_is_lost_or_shown_twice() -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    end, shown, said = followed(Breaking(text, [250, 40, 700]))
    assert shown == text and isinstance(end, JobState) and end.exit_code == 1
    assert any("The log stands still (WebSocket" in line for line in said)


def test_a_server_that_is_gone_is_given_up() -> None:
    with pytest.raises(LaunchError, match=r"the job server is lost .* aclcmp attach job"):
        followed(Breaking("x" * 50, [10] * 1000, over=False))

"""From what the job server knows of a job to this command's exit code and words."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.submit import follow
from aclcmp.orchestrator.submit.actions import _follow_and_fetch, exit_code
from aclcmp.orchestrator.submit.client import JobClient, JobState
from aclcmp.orchestrator.submit.follow import Choice
from aclcmp.orchestrator.submit.output import JobConsole


@pytest.mark.parametrize(
    ("status", "code", "message", "expected", "words"),
    [
        ("SUCCEEDED", 0, "", 0, ""),
        ("FAILED", 1, "", 1, ""),
        ("FAILED", 2, "", 2, ""),
        ("FAILED", 3, "", 3, ""),
        ("FAILED", 4, "", 4, ""),
        ("FAILED", 70, "", 70, ""),
        ("FAILED", 127, "sh: aclcmp: not found", 3, "no aclcmp on the PATH"),
        ("FAILED", -9, "killed", 3, "failed: killed"),
        ("FAILED", None, "a\nRuntimeEnvSetupError: no space", 3, "RuntimeEnvSetupError: no space"),
        ("FAILED", 0, "lost", 3, "failed: lost"),
        ("STOPPED", None, "", 3, "stopped"),
        ("SUCCEEDED", None, "", 0, ""),  # an older Ray
    ],
)
def test_exit_code(status: str, code: int | None, message: str, expected: int, words: str) -> None:
    said: list[str] = []
    assert exit_code(JobState("job", status, code, message, 0, 0, "", {}), said.append) == expected
    assert (words in "".join(said)) and bool(said) is bool(words)


class Said:
    """In place of what talks to a user, who leaves a job running at Ctrl-C."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Choice]:
        def say(*_: object) -> Choice:
            self.words.append(name)
            return Choice.DETACH

        return say


@pytest.mark.parametrize(
    ("error", "words"),
    [(KeyboardInterrupt, ["ask", "how_to_return"]), (BrokenPipeError, ["close_log", "how_to_return"])],
)
def test_what_ends_the_following(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[BaseException], words: list[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(follow, "follow", interrupted)
    said = Said()
    assert _follow_and_fetch(cast("JobClient", None), "job", "", tmp_path, Fetch.REPORT, cast("JobConsole", said)) == 4
    assert said.words == words

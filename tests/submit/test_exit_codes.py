"""From what the job server knows of a job to this command's exit code and words."""

import pytest

from aclcmp.orchestrator.submit.actions import exit_code
from aclcmp.orchestrator.submit.client import JobState
from aclcmp.orchestrator.submit.follow import visible


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
        ("STOPPED", None, "", 3, "stopped"),
        ("SUCCEEDED", None, "", 0, ""),  # an older Ray
    ],
)
def test_exit_code(status: str, code: int | None, message: str, expected: int, words: str) -> None:
    said: list[str] = []
    assert exit_code(JobState("job", status, code, message, 0, 0, "", {}), said.append) == expected
    assert (words in "".join(said)) and bool(said) is bool(words)


def test_a_log_does_nothing_to_the_terminal() -> None:
    assert visible("plain ✗ 目录\n") == "plain ✗ 目录\n"
    assert "\x1b" not in visible("a\x1b]0;owned\x07b\n") and visible("a\x00\n") == "a\ufffd\n"

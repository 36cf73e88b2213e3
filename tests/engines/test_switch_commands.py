"""Commands of which no engine need be asked for switches."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.engines.switches import engine_switches
from aclcmp.orchestrator.errors import UsageError

MODULE = "aclcmp.labeling.engines.vllm_run"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "the command is empty"),
        (["python", "x.py"], "the command is python"),
        (["python", "-m", MODULE], f"the command lacks MODEL PROMPTS MAX_TOKENS behind {MODULE}"),
        (["python", "-m", MODULE, "model"], f"the command lacks PROMPTS MAX_TOKENS behind {MODULE}"),
        (["python", "-m", MODULE, "gone", "prompts.txt", "4"], "gone is no folder here"),
    ],
)
def test_a_command_that_check_did_not_start_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        engine_switches("vllm", command)

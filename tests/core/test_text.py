"""Small texts for people."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.core.text import shown_path


def test_paths_are_called_from_where_the_user_stands(weird_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weird_path)
    assert shown_path(weird_path / "sub" / "model.py") == "sub/model.py"
    assert shown_path(f"{weird_path}/sub/model.py:212") == "sub/model.py:212", "a call site"
    for other in ("/elsewhere/model.py:3", "model.py:3", "vllm:RowParallelLinear", "", f"{weird_path}2/model.py"):
        assert shown_path(other) == other, "what does not lie below stays as it is"

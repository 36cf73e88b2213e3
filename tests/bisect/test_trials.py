"""The folder of a bisection: it goes on where it ended, and is never mixed with another."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.bisect.trials import Result, Trials
from aclcmp.orchestrator.errors import UsageError


def test_it_goes_on(weird_path: Path) -> None:
    trials = Trials(weird_path / "b", ["cmd", "a", "b"])
    first = trials.new_folder()
    first.mkdir()  # a trial that is cut off keeps its folder
    assert trials.new_folder() != first
    second = trials.new_folder()
    trials.keep(("a",), Result(second, True, float("inf")))
    again = Trials(weird_path / "b", ["cmd", "a", "b"])
    known = again.known(("a",))
    assert known is not None and known.mends and known.folder == second.absolute() and len(again) == 1
    assert again.known(("b",)) is None and again.known(("a", "b")) is None


def test_another_one_is_refused(tmp_path: Path) -> None:
    Trials(tmp_path / "b", ["cmd", "a"])
    with pytest.raises(UsageError, match="of another command"):
        Trials(tmp_path / "b", ["cmd", "b"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        Trials(tmp_path / "other", ["cmd"])
    (tmp_path / "b" / "bisect.json").write_text('{"asked": [1], "trials": 3}')
    with pytest.raises(UsageError, match="cannot be read"):
        Trials(tmp_path / "b", ["cmd", "a"])

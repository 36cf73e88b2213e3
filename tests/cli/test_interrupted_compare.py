"""Ctrl-C while `aclcmp compare` compares: what is said first, which report stays, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.cli.commands import compare_again
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.run.directory import RunDir
from tests.recorded import read_report, write_run

X = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
_COMPARE_ALL = LocalComparer.compare_pairs


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return write_run(tmp_path / "run", [[("pta", "x", X), ("acl", "x", X), ("pta", "y", X), ("acl", "y", X)]])


def interrupt_after(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Let Ctrl-C end the comparison after so many pairs."""

    def compare(self: LocalComparer, all_pairs: Sequence[Pair], advance: Callable[[int, int], None]) -> Outcomes:
        return _COMPARE_ALL(self, all_pairs[:pairs], advance)

    monkeypatch.setattr(LocalComparer, "compare_pairs", compare)


def compare(run: RunDir) -> ExitCode:
    return compare_again(run.root, None, JudgingOptions(Policy()), clean=False, as_json=False)


def test_the_interruption_is_said_first(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_after(monkeypatch, 0)
    assert compare(run) is ExitCode.FAILED
    first, *others = capsys.readouterr().out.strip().splitlines()
    assert first == "Interrupted before anything was compared."
    assert not any("Nothing was compared" in line or "fit" in line for line in others)
    assert read_report(run.root)["verdict"] == "failed"
    interrupt_after(monkeypatch, 1)
    assert compare(run) is ExitCode.INCOMPLETE, "it has something that the report of before has not"
    first, *others = capsys.readouterr().out.strip().splitlines()
    assert first == "Interrupted: of 2 comparisons of a label on a rank 1 were not reached."
    assert not any("readable" in line for line in others)
    assert read_report(run.root)["verdict"] == "incomplete"


@pytest.mark.parametrize("pairs", [0, 1])
def test_a_complete_report_is_kept(
    run: RunDir, pairs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(run) is ExitCode.MATCH
    before = run.report_json.read_bytes(), run.report_h5.read_bytes()
    interrupt_after(monkeypatch, pairs)
    assert compare(run) is (ExitCode.INCOMPLETE if pairs else ExitCode.FAILED)
    assert (run.report_json.read_bytes(), run.report_h5.read_bytes()) == before
    out = capsys.readouterr().out
    assert f"The report in {run.root} is kept: the interrupted comparison has nothing more.\n" in out
    run.report_h5.write_bytes(b"damaged")
    compare(run)
    assert run.report_json.read_bytes() != before[0], "what cannot be read is written anew"

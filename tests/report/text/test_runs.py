"""The list of runs: their names stay whole where there is little room, because they are typed."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from aclcmp.orchestrator.core.run_record import Failure, RankState
from aclcmp.orchestrator.report.text.runs import print_runs
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.run_list import ReportHead, StoredRun
from tests.report.made_up import record_of

NAME = "20261129-235332"
FIRST = {"task": 0, "label": "layers.2.self_attn.o_proj"}


@pytest.mark.parametrize("width", [50, 60, 200])
def test_names_are_whole(tmp_path: Path, width: int) -> None:
    head = ReportHead.model_validate({"verdict": "diverged", "first_divergence": FIRST})
    out = io.StringIO()
    print_runs([StoredRun(RunDir(tmp_path / NAME, NAME), None, head, 0.0)], Console(file=out, width=width))
    assert NAME in out.getvalue() and all(len(line) <= width for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("state", "failure", "word"),
    [
        (RankState.LOST, None, "not ended"),  # it runs, or its driver was killed
        (RankState.LOST, Failure(rank=0, what="rank 0 was lost"), "failed"),
        (RankState.FAILED, None, "failed"),
        (RankState.FINISHED, None, "not compared"),
    ],
)
def test_a_run_without_a_report(tmp_path: Path, state: RankState, failure: Failure | None, word: str) -> None:
    record = record_of(2, failure)
    ranks = tuple(rank.model_copy(update={"state": state}) for rank in record.ranks)
    stored = StoredRun(RunDir(tmp_path / NAME, NAME), record.model_copy(update={"ranks": ranks}), None, 0.0)
    out = io.StringIO()
    print_runs([stored], Console(file=out, width=200))
    assert word in out.getvalue()

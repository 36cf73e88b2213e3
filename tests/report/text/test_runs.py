"""The list of runs: their names stay whole where there is little room, because they are typed."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from aclcmp.orchestrator.report.text.runs import print_runs
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.run_list import ReportHead, StoredRun

NAME = "20261129-235332"
FIRST = {"task": 0, "label": "layers.2.self_attn.o_proj"}


@pytest.mark.parametrize("width", [50, 60, 200])
def test_names_are_whole(tmp_path: Path, width: int) -> None:
    head = ReportHead.model_validate({"verdict": "diverged", "first_divergence": FIRST})
    out = io.StringIO()
    print_runs([StoredRun(RunDir(tmp_path / NAME, NAME), None, head, 0.0)], Console(file=out, width=width))
    assert NAME in out.getvalue() and all(len(line) <= width for line in out.getvalue().splitlines())

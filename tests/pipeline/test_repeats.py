"""A further run measures the noise only where it went well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.run_record import Failure
from aclcmp.orchestrator.pipeline.load_and_plan import plan_local_run
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record, save_record
from aclcmp.orchestrator.terminal.screen import Screen
from tests.live.growing import Rank
from tests.recorded import record_run


def recorded(folder: Path) -> RunDir:
    run = RunDir(folder, "run")
    run.shards.mkdir(parents=True)
    rank = Rank(run.shards, 0, 1)
    for side in ("pta", "acl"):
        rank.label(side, "x", np.ones(4, np.float32))
    rank.writer.close()
    record_run(run, "model.py", 1)
    return run


@pytest.mark.parametrize("what", ["went well", "failed", "was killed before it began"])
def test_a_run_that_failed_measures_no_noise(tmp_path: Path, what: str) -> None:
    run = recorded(tmp_path / "run")
    again = recorded(run.again("repeat"))
    record = load_record(again.record)
    if what == "failed":
        save_record(
            record.model_copy(update={"failure": Failure(rank=0, what="rank 0 exited with code 1")}), again.record
        )
    elif what == "was killed before it began":
        again.record.unlink()
    planned = plan_local_run(run, load_record(run.record), Screen(Console(quiet=True)), LayoutRules())
    assert (FloorSource.REPEAT in planned.floors) is (what == "went well")
    given = plan_local_run(run, load_record(run.record), Screen(Console(quiet=True)), LayoutRules(), run.root)
    assert FloorSource.REPEAT in given.floors

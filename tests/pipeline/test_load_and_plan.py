"""A shard that cannot be read: a note after a run, whose other labels are wanted; an error where one asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_finished_run, plan_local_run
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from aclcmp.orchestrator.terminal.screen import Screen
from tests.live.growing import Rank
from tests.recorded import record_run


def test_an_unreadable_shard_after_a_run(tmp_path: Path) -> None:
    run, screen = RunDir(tmp_path, "run"), Screen(Console(quiet=True))
    run.shards.mkdir(parents=True)
    for number in range(2):
        rank = Rank(run.shards, number, 2)
        for side in ("pta", "acl"):
            rank.label(side, "x", np.ones(4, np.float32))
        rank.writer.close()
    record_run(run, "model.py", 2)
    record = load_record(run.record)
    whole = plan_finished_run(ComparedRun(run, record), {}, screen).plan
    assert whole.pairs == plan_local_run(run, record, screen, LayoutRules()).plan.pairs
    assert whole.unreadable == 0 and {pair.rank for pair in whole.pairs} == {0, 1}
    for path in run.shards.glob("rank00001*"):
        path.write_bytes(b"damaged" * 100)
    planned = plan_finished_run(ComparedRun(run, record), {}, screen).plan
    assert planned.unreadable == 1 and "rank00001" in planned.notes[-1]
    assert {pair.rank for pair in planned.pairs} == {0}
    with pytest.raises(UsageError, match="rank00001"):
        plan_local_run(run, record, screen, LayoutRules())

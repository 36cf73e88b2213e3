"""Workers that an engine starts: all inherit the environment of one process, and torch.distributed tells them apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.labeling.identity import RankIdentity, distributed_identity
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.plan.planner import plan_run
from aclcmp.orchestrator.run.directory import RunDir
from tests.models.comparing import judge_runs
from tests.models.running import RUN_ID
from tests.processes import PATIENCE
from tests.recorded import record_run

pytestmark = pytest.mark.model

ENGINE = """
import multiprocessing, sys
import torch, torch.distributed as dist

def worker(rank, workers, meeting, joined):
    from aclcmp import set_label, set_task_id
    torch.set_num_threads(1)
    set_task_id()
    if joined == "late":
        set_label("actual", "early", torch.zeros(3))
    if joined != "never":
        dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=workers)
    whole = torch.arange(24.0).reshape(4, 6).sin()
    meet = torch.ones(1)
    if joined != "never":
        dist.all_reduce(meet)
    else:
        barrier.wait(600)
    set_label("actual", "x", whole.chunk(workers, 1)[rank])
    set_label("actual", "y", whole * (rank + 1 if rank == fault else 1))
    if joined != "never":
        dist.destroy_process_group()
        set_label("actual", "z", whole)
    else:
        barrier.wait(600)

if __name__ == "__main__":
    meeting, joined, fault = sys.argv[1], sys.argv[2], int(sys.argv[3])
    processes = multiprocessing.get_context("fork")
    barrier = processes.Barrier(2)
    ranks = [processes.Process(target=worker, args=(rank, 2, meeting, joined)) for rank in range(2)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    sys.exit(any(each.exitcode for each in ranks))
"""
GOLDEN = """
import numpy as np
from aclcmp import set_label, set_task_id
set_task_id()
whole = np.sin(np.arange(24, dtype=np.float32)).reshape(4, 6)
for name in ("x", "y", "z"):
    set_label("golden", name, whole)
"""


def ran(folder: Path, script: str, *arguments: str, **env: str) -> RunDir:
    """Make the run of a script that the launcher started as one rank, rank 0 of 1."""
    run = RunDir.create(folder / "run")
    path = folder / "engine.py"
    path.write_text(script)
    environ = {"ACLCMP_SHARD_DIR": str(run.shards), "ACLCMP_RUN_ID": RUN_ID, "RANK": "0", "WORLD_SIZE": "1"} | env
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(
        command, env=os.environ | environ, capture_output=True, text=True, timeout=PATIENCE, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    record_run(run, "engine.py", 1, RUN_ID)
    return run


def engine(folder: Path, joined: str, fault: int = -1, **env: str) -> RunDir:
    return ran(folder, ENGINE, str(folder / "meeting"), joined, str(fault), **env)


def shards(run: RunDir) -> list[ShardIndex]:
    return [read_shard(files) for files in shards_in(run.shards)]


def labels(index: ShardIndex) -> list[str]:
    return [record.data_id for record in index.records]


def test_workers_that_meet_before_their_first_label_are_ranks_of_their_own(tmp_path: Path) -> None:
    run = engine(tmp_path, "early", fault=1)
    found = shards(run)
    who = [(each.header.rank, each.header.world_size, each.header.local_rank) for each in found]
    assert who == [(0, 2, 0), (1, 2, 1)] and plan_run(found, 2).notes == ()
    assert labels(found[0]) == labels(found[1]) == ["x", "y", "z"], "the group is gone before the last one"
    (tmp_path / "golden").mkdir()
    judgement = judge_runs(ran(tmp_path / "golden", GOLDEN).root, run.root)
    ranks = {label.key.label: {v.rank: v.status for v in label.ranks} for label in judgement.labels}
    right = {0: Status.MATCH, 1: Status.MATCH}
    assert ranks == {"x": right, "y": right | {1: Status.DIVERGED}, "z": right}
    assert judgement.first_divergence is not None and judgement.first_divergence.ranks == (1,)


def test_workers_that_never_meet_are_told(tmp_path: Path) -> None:
    found = shards(engine(tmp_path, "never"))
    assert [each.header.rank for each in found] == [0, 0]
    (note,) = plan_run(found, 1).notes
    assert note.startswith("2 processes recorded as rank 0 at the same time, the same labels")
    assert "Set RANK in each, or start torch.distributed before the first label" in note


def test_workers_that_meet_after_their_first_label_are_told(tmp_path: Path) -> None:
    found = shards(engine(tmp_path, "late"))
    assert [each.header.rank for each in found] == [0, 0] and all("early" in labels(each) for each in found)
    assert any(note.startswith("2 processes recorded as rank 0") for note in plan_run(found, 1).notes)


def test_workers_of_a_larger_job_stay_who_they_are(tmp_path: Path) -> None:
    """A group of two processes within a job of four is a part of it: the environment tells more."""
    found = shards(engine(tmp_path, "early", RANK="3", WORLD_SIZE="4", LOCAL_RANK="1"))
    assert {(each.header.rank, each.header.world_size, each.header.local_rank) for each in found} == {(3, 4, 1)}


def test_without_a_process_group_the_environment_counts() -> None:
    told = RankIdentity("r", 5, 8, 1)
    assert distributed_identity(told) is told

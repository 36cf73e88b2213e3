"""Recorders and run.json of a run that was made without the launcher, and report.json of any."""

import json
from pathlib import Path
from typing import Any

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.orchestrator.core.run_record import RankRecord, RankState, RunRecord
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import save_record


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report in a run directory, or in the folder of a comparison."""
    return dict(json.loads((folder / "report.json").read_text()))


def recorder_of(folder: Path, rank: int = 0, ranks: int = 1, *, strict: bool = False) -> Recorder:
    """Return a recorder of all labels of a rank, which are stored in full."""
    header = ShardHeader("run", rank, ranks, rank, 0, "here", 1, 0.0)
    return Recorder(folder, header, strict, Capture.FULL, LabelFilter())


def record_run(run: RunDir, script: str, ranks: int) -> None:
    """Write run.json as the launcher does for ranks that all went well."""
    each = tuple(
        RankRecord(
            rank=rank,
            local_rank=rank,
            host="here",
            ip="127.0.0.1",
            node_id="n",
            devices=(),
            state=RankState.FINISHED,
            exit_code=0,
            started=0.0,
            finished=1.0,
        )
        for rank in range(ranks)
    )
    save_record(
        RunRecord(
            run_id="run",
            command=("python", script),
            cwd=str(run.root),
            launcher="ray",
            device="cpu",
            visibility="node",
            cluster="local Ray",
            started=0.0,
            finished=1.0,
            versions={},
            environment={},
            ranks=each,
        ),
        run.record,
    )

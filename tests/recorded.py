"""Runs that were made without the launcher: their recorders, labels and run.json; and report.json of any."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.layout import Layout
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.orchestrator.core.run_record import RankRecord, RankState, RunRecord
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import save_record


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report in a run directory, or in the folder of a comparison."""
    return dict(json.loads((folder / "report.json").read_text()))


def recorder_of(
    folder: Path, rank: int = 0, ranks: int = 1, *, strict: bool = False, capture: Capture = Capture.FULL
) -> Recorder:
    """Return a recorder of all labels of a rank."""
    header = ShardHeader("run", rank, ranks, rank, 0, "here", 1, 0.0)
    return Recorder(folder, header, strict, capture, LabelFilter())


def record_run(run: RunDir, script: str, ranks: int, run_id: str = "run") -> None:
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
            run_id=run_id,
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


def write_run(
    folder: Path,
    ranks: Sequence[Sequence[tuple[str, str, npt.NDArray[np.float32]]]],
    layout: Layout | None = None,
    run_id: str = "run",
) -> RunDir:
    """Write the labels of each rank, (side, name, values), as a run that has ended; `layout` is that of actual ones."""
    run = RunDir(RunDir.create(folder).root, run_id)
    for rank, labels in enumerate(ranks):
        writer = ShardWriter(run.shards, ShardHeader(run_id, rank, len(ranks), rank, 0, "here", 1, 0.0))
        for seq, (side, name, values) in enumerate(labels):
            record = LabelRecord(0, name, 0, side, seq, float(seq), "f:1", "float32", values.shape, "cpu")
            record = replace(record, layout=layout if side == "acl" else None)
            writer.add(record, np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        writer.close()
    record_run(run, "x.py", len(ranks), run_id)
    return run

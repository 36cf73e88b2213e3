"""run.json of a process that recorded itself."""

from __future__ import annotations

import platform
import socket
import sys
from pathlib import Path

from aclcmp import __version__
from aclcmp.orchestrator.cluster.cluster import LOCAL_RAY
from aclcmp.orchestrator.core.run_record import Failure, RankRecord, RankState, RunRecord


def own_record(run_id: str, started: float, finished: float, error: str) -> RunRecord:
    """Return the record of this process as the one rank of a run; `error` says how it failed, "" if it did not."""
    rank = RankRecord(
        rank=0,
        local_rank=0,
        host=socket.gethostname(),
        ip="127.0.0.1",
        node_id="",
        devices=(),
        state=RankState.FAILED if error else RankState.FINISHED,
        exit_code=None,
        started=started,
        finished=finished,
    )
    return RunRecord(
        run_id=run_id,
        command=tuple(sys.argv) or ("python",),
        cwd=str(Path.cwd()),
        launcher="none",
        device="auto",
        visibility="node",
        cluster=LOCAL_RAY,
        started=started,
        finished=finished,
        versions={"aclcmp": __version__, "python": platform.python_version()},
        environment={},
        ranks=(rank,),
        failure=Failure(rank=0, what=error) if error else None,
    )

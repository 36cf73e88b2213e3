"""Write run.json from the commands that are followed."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence

from aclcmp.orchestrator.core.job import Device, Job
from aclcmp.orchestrator.core.run_record import Failure, RankRecord, RankState, RunRecord
from aclcmp.orchestrator.launch.environment import variables_for_record
from aclcmp.orchestrator.launch.follow_ranks import Command
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import save_record

_DISTRIBUTIONS = ("aclcmp", "ray", "numpy", "h5py", "torch", "torch-npu", "transformers")


class RecordWriter:
    """Writer of one run's record, which may be saved several times."""

    def __init__(self, job: Job, device: Device, cluster: str, run: RunDir, say: Callable[[str], None]) -> None:
        """Take what does not change; `say` prints a warning where run.json cannot be written."""
        self._job = job
        self._device = device
        self._cluster = cluster
        self._run = run
        self._say = say
        self._started = time.time()
        self.environment: Mapping[str, str] = {}
        """Environment of the first rank."""
        self.low_level: tuple[str, ...] = ()
        """Preparations for the library's dumps, in sentences."""
        self.stop_reason = ""
        """Reason why the run was ended early though nothing failed, or empty."""

    def save(self, commands: Sequence[Command], failure: Failure | None) -> RunRecord:
        """Write run.json as things are now, and return the record. A rank whose end is unknown is recorded as lost."""
        now = time.time()
        record = RunRecord(
            run_id=self._run.run_id,
            command=self._job.command,
            cwd=str(self._job.cwd),
            launcher=self._job.launcher.value,
            device=self._device.value,
            visibility=self._job.visibility.value,
            cluster=self._cluster,
            started=self._started,
            finished=now,
            versions=_versions(),
            environment=variables_for_record(self.environment),
            ranks=tuple(
                RankRecord(
                    rank=rank.rank,
                    local_rank=rank.local_rank,
                    host=rank.host,
                    ip=rank.ip,
                    node_id=rank.node_id,
                    devices=rank.devices,
                    state=command.state or RankState.LOST,
                    exit_code=command.exit_code,
                    started=command.started,
                    finished=command.finished or now,
                )
                for command in commands
                for rank in command.ranks
            ),
            labels=self._job.labels,
            tasks=self._job.tasks,
            capture=self._job.capture.value,
            inputs=self._job.inputs,
            golden="" if self._job.golden is None else str(self._job.golden),
            inject=self._job.inject,
            low_level=self.low_level,
            stopped=self.stop_reason,
            failure=failure,
        )
        try:
            save_record(record, self._run.record)
        except OSError as error:  # the labels can be compared all the same
            later = "a later `aclcmp compare` will not know how the ranks ended"
            self._say(f"{self._run.record} cannot be written: {error.strerror}; {later}")
        return record


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

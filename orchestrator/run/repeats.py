"""Further runs of a run's command, which measure its noise."""

from __future__ import annotations

from pathlib import Path

from aclcmp.orchestrator.core.floors import REPEATS, FloorSource
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import open_run


def find_repeats(run: RunDir, repeat: Path | None) -> dict[FloorSource, tuple[RunDir, RunRecord]]:
    """Return the further runs that measure noise floors: those inside the run directory, and the given `repeat`."""
    folders = {source: run.again(source.value) for source in REPEATS.values()}
    found = {source: open_run(folder) for source, folder in folders.items() if RunDir(folder, "").record.exists()}
    if repeat is not None:
        found[FloorSource.REPEAT] = open_run(repeat)
    return found

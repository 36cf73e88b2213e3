"""The runs that lie beside each other: which is the latest, how each ended, what it takes of the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.core.text import shown_path
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import LATEST, RUNS, RunDir
from aclcmp.orchestrator.run.record_file import load_record

_HEAD = 1 << 16
"""Bytes at the beginning of report.json within which its labels begin."""


class _First(BaseModel):
    model_config = ConfigDict(frozen=True)

    task: int
    label: str


class ReportHead(BaseModel):
    """What report.json begins with."""

    model_config = ConfigDict(frozen=True)

    verdict: str
    first_divergence: _First | None = None


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run on the disk, or the report on two."""

    run: RunDir
    record: RunRecord | None
    """None: a report on two runs, or a run.json that cannot be read."""
    head: ReportHead | None
    """None where nothing was compared."""
    time: float
    """When it ended, in seconds since the epoch."""


def runs_in(folder: Path) -> list[StoredRun]:
    """Return the runs in a folder, the oldest first."""
    try:
        inside = [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
    except OSError:
        return []
    found = [stored for each in sorted(inside) if (stored := find_run(each)) is not None]
    return sorted(found, key=_end)


def latest_run() -> Path:
    """Return the folder of the latest run of the working directory. Raises UsageError where there is none.

    Known are those in `aclcmp-runs`, and the one that its link leads to, wherever that lies.
    """
    return Path(shown_path(_known_runs()[-1].run.root))


def latest_two() -> tuple[Path, Path]:
    """Return the latest two runs that were compared, the older one first. Raises UsageError for less than two."""
    compared = [Path(shown_path(each.run.root)) for each in _known_runs() if each.head is not None]
    if len(compared) < 2:
        raise UsageError(f"{RUNS} has no two runs that were compared; give RUN_A and RUN_B")
    return compared[-2], compared[-1]


def _known_runs() -> list[StoredRun]:
    found = runs_in(Path(RUNS))
    linked = find_run((Path(RUNS) / LATEST).resolve())
    if linked is not None and linked.run.root not in [each.run.root for each in found]:
        found = sorted([*found, linked], key=_end)
    if not found:
        raise UsageError(f"there is no run in {RUNS} here; give RUN, a run directory")
    return found


def _end(stored: StoredRun) -> float:
    return stored.time


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; links are not followed."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_size
            except OSError:  # it is gone by now
                continue
    return total


def nested_runs(root: Path) -> Iterator[RunDir]:
    """Yield a run, and those that further launches made within it."""
    for path, folders, names in os.walk(root):
        run = RunDir(Path(path), "")
        if run.record.name in names:
            yield run
            folders[:] = [name for name in folders if Path(path) / name not in (run.shards, run.logs, run.dumps)]


def find_run(folder: Path) -> StoredRun | None:
    """Return the run in a folder, None where there is none."""
    run = RunDir(folder.absolute(), folder.name)
    try:
        time = max(each.stat().st_mtime for each in (run.record, run.report_h5) if each.exists())
    except (ValueError, OSError):
        return None
    try:
        record = load_record(run.record) if run.record.exists() else None
    except AclcmpError:
        record = None
    return StoredRun(run, record, _read_head(run.report_json), record.finished if record else time)


def _read_head(path: Path) -> ReportHead | None:
    """Read the beginning of report.json, which may be large."""
    try:
        with path.open("rb") as file:
            before, labels, _ = file.read(_HEAD).partition(b'"labels": [')
        return ReportHead.model_validate(json.loads(before.rstrip().rstrip(b",") + b"}")) if labels else None
    except (OSError, ValueError, RecursionError, ValidationError):
        return None

"""What old runs hold beside their reports and logs, and how it is removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import LATEST, RunDir
from aclcmp.orchestrator.run.run_list import StoredRun, nested_runs, runs_in, size_of


@dataclass(frozen=True, slots=True)
class OldData:
    """The shards and dumps of an old run, and of the further runs within it."""

    run: RunDir
    folders: tuple[Path, ...]
    size: int
    """Bytes."""
    why_kept: str = ""
    """Why they are not to be removed; "": they are."""


def old_data(folder: Path, keep: int) -> list[OldData]:
    """Return what is left of all runs but the `keep` newest, the oldest first. A link to a run counts as nothing."""
    runs = runs_in(folder)
    old, kept = (runs[:-keep], runs[-keep:]) if keep else (runs, [])
    latest = (folder / LATEST).resolve()
    serving = {path: name for each in kept for path, name in _golden_of(each)}
    found = []
    for each in old:
        folders = tuple(path for run in nested_runs(each.run.root) for path in (run.shards, run.dumps) if _is_own(path))
        root = each.run.root.resolve()
        why = ""
        if each.head is None:
            why = "it was not compared"
        elif root == latest:
            why = f"it is the {LATEST} one"
        elif root in serving:
            why = f"its golden values serve {serving[root]}"
        if size := sum(map(size_of, folders)):
            found.append(OldData(each.run, folders, size, why))
    return found


def remove(data: OldData) -> None:
    """Remove the folders. Raises UsageError where one cannot be."""
    for path in data.folders:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be removed: {error.strerror}") from None


def _golden_of(stored: StoredRun) -> Iterable[tuple[Path, str]]:
    if stored.record is not None and stored.record.golden:
        yield Path(stored.record.golden).resolve(), stored.run.root.name


def _is_own(path: Path) -> bool:
    """Tell whether a folder is there and no link to one elsewhere."""
    return path.is_dir() and not path.is_symlink()

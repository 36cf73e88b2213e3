"""Runs on golden's values: the golden run that they are taken from, and the run that was computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from aclcmp.labeling.capture import Capture
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import open_run
from aclcmp.orchestrator.run.shards import read_indices


def open_golden_run(folder: Path, inject: Sequence[str] = ()) -> RunDir:
    """Open the run whose golden values are put into another. Raises UsageError where it has not those that are needed.

    `inject` are the labels that are replaced; none: all.
    """
    run, record = open_run(folder)
    if record.golden:
        raise UsageError(f"{folder} was itself computed from golden's values, those of {record.golden}; give that run")
    found = read_indices(run)
    labels = [label for index in found.indices for label in index.records if label.side == "pta"]
    names = {label.data_id for label in labels}
    if not labels:
        why = f": {found.unreadable[0].why}" if found.unreadable else ""
        raise UsageError(f"{folder} has no golden label{why}; give a run in which the golden side was recorded")
    if all(label.capture != Capture.FULL.value for label in labels):
        raise UsageError(f"{folder} has only summaries of golden's tensors; record it with --capture full")
    if missing := next((name for name in inject if name not in names), None):
        near = get_close_matches(missing, names, 1)
        nearest = f"; nearest: {near[0]}" if near else ""
        raise UsageError(f"{folder} has no golden label {missing!r} to inject{nearest}")
    return run


def find_run_on_golden_values(run: RunDir, record: RunRecord) -> tuple[RunDir, RunRecord] | None:
    """Return a run itself, or the one inside it, that was computed from golden's values; None where there is none."""
    if record.golden:
        return run, record
    if not RunDir(run.local, "").record.exists():
        return None
    inside, of_inside = open_run(run.local)
    return (inside, of_inside) if of_inside.failure is None else None

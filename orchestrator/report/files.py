"""Write the report files of a run, each in one step: a reader sees the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.plan.planner import without_collection
from aclcmp.orchestrator.report.as_csv import write_csv
from aclcmp.orchestrator.report.as_h5 import write_h5
from aclcmp.orchestrator.report.as_json import write_json
from aclcmp.orchestrator.report.as_junit import write_junit
from aclcmp.orchestrator.report.model import Report
from aclcmp.orchestrator.rundir import RunDir


def write_reports(report: Report, run: RunDir) -> tuple[Path, ...]:
    """Write all report files and return their paths. Raises AclcmpError when one cannot be written."""
    writers = {
        run.report_json: write_json,
        run.report_csv: write_csv,
        run.report_h5: write_h5,
        run.report_xml: write_junit,
    }
    with without_collection():
        for path, write in writers.items():
            with replacing(path) as part:
                write(report, part)
    return tuple(writers)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside the file to write to, and put it in its place. Raises AclcmpError when that fails."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise AclcmpError(f"cannot write {path}: {words_of(error)}") from error
    finally:
        with suppress(OSError):  # as when the folder is read-only
            part.unlink()


def words_of(error: Exception) -> str:
    """Return an error in one line; in the system's words where it has some, for h5py's run over several lines."""
    system = isinstance(error, OSError) and error.errno
    return os.strerror(system) if system else " ".join(str(error).split())

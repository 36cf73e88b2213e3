"""Write the report files of a run, each in one step: a reader sees the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.atomic_file import replace_atomically
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.core.compact import without_collection
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.report.as_csv import write_csv
from aclcmp.orchestrator.report.as_json import write_json
from aclcmp.orchestrator.report.as_junit import write_junit
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.run.directory import RunDir


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The report files that were written, and in words why others were not."""

    files: tuple[Path, ...]
    problems: tuple[str, ...] = ()


def write_reports(report: Report, run: RunDir) -> WriteResult:
    """Write all report files; one that cannot be written takes no other along."""
    writers = {
        run.report_json: write_json,
        run.report_csv: write_csv,
        run.report_h5: write_h5,
        run.report_xml: write_junit,
    }
    files: list[Path] = []
    problems: list[str] = []
    with without_collection():
        for path, write in writers.items():
            try:
                with replace_file(path) as part:
                    write(report, part)
                files.append(path)
            except AclcmpError as error:
                problems.append(str(error))
    return WriteResult(tuple(files), tuple(problems))


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, and put it in the file's place. Raises AclcmpError when that fails."""
    try:
        with replace_atomically(path) as part:
            yield part
    except (OSError, RuntimeError) as error:  # h5py raises the latter where it cannot close a file
        raise AclcmpError(f"cannot write {path}: {words_of(error)}") from error


def words_of(error: Exception) -> str:
    """Return an error in one line; in the system's words where it has some, for h5py's run over several lines."""
    system = isinstance(error, OSError) and error.errno
    return os.strerror(system) if system else " ".join(str(error).split())

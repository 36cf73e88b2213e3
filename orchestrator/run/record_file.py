"""Write run.json atomically, and read it back when a run is compared again."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from aclcmp.labeling.atomic_file import replace_atomically
from aclcmp.orchestrator.core.run_record import SCHEMA, RunRecord, VersionedRecord
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import RunDir


def save_record(record: RunRecord, path: Path) -> None:
    """Write run.json atomically. Raises OSError."""
    with replace_atomically(path) as part:
        part.write_text(record.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")


def load_record(path: Path) -> RunRecord:
    """Read run.json. Raises UsageError when it is missing or not ours."""
    try:
        content = path.read_bytes()
        schema = VersionedRecord.model_validate_json(content).schema_version
        if schema > SCHEMA:
            raise UsageError(
                f"{path} has schema {schema}; this aclcmp reads up to {SCHEMA}: use the version that wrote it"
            )
        return RunRecord.model_validate_json(content)
    except FileNotFoundError:
        raise UsageError(f"{path.parent} is not a run directory: it has no {path.name}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UsageError(f"{path} cannot be read: {error.errors()[0]['msg']}") from None


def open_run(folder: Path) -> tuple[RunDir, RunRecord]:
    """Open a run directory to compare it again. Raises UsageError when it holds no run."""
    run = RunDir.at(folder)
    if not run.record.exists():
        raise UsageError(f"{folder} is not a run directory: it has no {run.record.name}")
    record = load_record(run.record)
    return RunDir(run.root, record.run_id), record

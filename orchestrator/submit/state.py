"""The jobs submitted from here, in a small file below the user's state folder. It holds no token and no variable."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

_MOST_JOBS = 200


class KnownJob(BaseModel):
    """One job that was submitted from here."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    address: str
    file: str
    """The cluster file."""
    output: str
    """The folder here that its report is brought to."""
    submitted: float
    """Seconds since 1970."""


class _JobsFile(BaseModel):
    schema_version: int = 1
    jobs: list[KnownJob] = []


def state_file() -> Path:
    """Return the path of the file: $XDG_STATE_HOME/aclcmp/jobs.json, by default below ~/.local/state.

    The path is relative for a user without a home folder.
    """
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():  # its specification says to ignore a relative one
        home = Path("~/.local/state")
        with suppress(RuntimeError):
            home = home.expanduser()
    return home / "aclcmp" / "jobs.json"


def remember(job: KnownJob) -> None:
    """Write a job down; the oldest are dropped where there are many. Raises OSError, also without a home folder."""
    path = state_file()
    if not path.is_absolute():
        raise OSError(errno.ENOENT, "there is no home folder")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock(path):
        jobs = [each for each in read_jobs() if each.job_id != job.job_id]
        content = _JobsFile(jobs=[*jobs, job][-_MOST_JOBS:]).model_dump_json(indent=1)
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(content + "\n")
        new.replace(path)


def read_jobs() -> list[KnownJob]:
    """Return the jobs written down, the oldest first. A damaged file is put aside and counts as empty."""
    path = state_file()
    try:
        return _JobsFile.model_validate_json(path.read_bytes()).jobs
    except (FileNotFoundError, NotADirectoryError):
        return []
    except ValidationError:
        path.replace(path.with_suffix(".damaged"))
        return []


def recall(job_id: str) -> KnownJob | None:
    """Return a job, None unless it was submitted from here."""
    return next((each for each in read_jobs() if each.job_id == job_id), None)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

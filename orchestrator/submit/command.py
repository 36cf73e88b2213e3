"""A job section goes in; out comes what runs on the cluster: one shell line, its variables, its run directory."""

from __future__ import annotations

import base64
import shlex
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from secrets import token_hex

from aclcmp.orchestrator.core.redaction import HIDDEN, is_secret
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.job_section import NOT_OPTIONS, Section

ALWAYS_EXCLUDED = (
    ".git/",
    ".venv/",
    "venv/",
    "__pycache__/",
    "*.egg-info/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".hypothesis/",
    "node_modules/",
    "aclcmp-runs/",
)
"""What of a working directory is never uploaded."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One job as the cluster gets it."""

    job_id: str
    entrypoint: str
    """A line for the shell of the head node."""
    run_dir: str
    """The run directory there, as a word of such a line: it may hold $HOME."""
    variables: Mapping[str, str] = field(repr=False)
    """Of the job's environment; secrets are here and not in the line, which logs and dashboards show."""
    working_dir: Path | None
    excludes: tuple[str, ...]

    @property
    def shown_variables(self) -> dict[str, str]:
        """The variables as they may be printed."""
        return dict.fromkeys(self.variables, HIDDEN)


def new_job_id() -> str:
    """Return an id that says when the job was submitted and is safe in a path, a URL and a shell."""
    return f"aclcmp-{time.strftime('%Y%m%d-%H%M%S')}-{token_hex(2)}"


def submission(section: Section, job_id: str, beside: Path) -> Submission:
    """Make a job of a section; a relative `working_dir` is relative to the folder `beside`.

    Raises UsageError for a working directory, or a file named within it, that does not exist.
    """
    folder = _working_dir(section, beside)
    run_dir = on_cluster(section.output) if section.output else f'"${{HOME:-/tmp}}"/aclcmp-runs/{job_id}'
    line = f"{shlex.join(arguments(section))} --address auto --output {run_dir}"
    secret = {name: value for name, value in section.env.items() if is_secret(name, value)}
    return Submission(job_id, line, run_dir, secret, folder, (*ALWAYS_EXCLUDED, *section.excludes))


def arguments(section: Section) -> list[str]:
    """Return the command line that does what a section says, without the secrets among its variables."""
    words = ["aclcmp", "run"]
    for name, info in Section.model_fields.items():
        value = getattr(section, name)
        option = "--" + name.replace("_", "-")
        if name in NOT_OPTIONS or (value == info.default and name != "ranks"):
            continue
        if name == "env":
            for variable, text in value.items():
                words += [] if is_secret(variable, text) else [option, f"{variable}={text}"]
        elif value is True:
            words.append(option)
        elif value is not False:
            words += [option, _word(value)]
    return words


def on_cluster(folder: str) -> str:
    """Return a folder on the cluster as a word for its shell; only `~/` and $HOME mean anything there."""
    if folder.startswith("~/"):
        return f'"${{HOME:-/tmp}}"/{shlex.quote(folder[2:])}'
    return shlex.quote(folder)


def packed(request: bytes) -> str:
    """Return bytes as one word that every shell leaves alone."""
    return base64.urlsafe_b64encode(zlib.compress(request, 9)).decode()


def _word(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _working_dir(section: Section, beside: Path) -> Path | None:
    if section.working_dir is None:
        return None
    folder = (beside / Path(section.working_dir).expanduser()).resolve()
    if not folder.is_dir():
        raise UsageError(f"working_dir {section.working_dir}: {folder} is no folder here")
    if section.policy is not None and not (folder / section.policy).is_file() and section.policy[0] not in "/~":
        raise UsageError(f"policy {section.policy}: no such file in the working_dir {folder}")
    return folder

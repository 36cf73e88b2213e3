"""From a job section to what runs on the cluster: one shell line, its variables, its run directory."""

from __future__ import annotations

import base64
import shlex
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from aclcmp.orchestrator.core.detect_launcher import MAX_SCRIPT
from aclcmp.orchestrator.core.floors import REPEATS
from aclcmp.orchestrator.core.job import JobOptions, split_command
from aclcmp.orchestrator.core.option_checks import find_refusal
from aclcmp.orchestrator.core.option_fields import as_key, as_text, options_of
from aclcmp.orchestrator.core.redaction import HIDDEN, is_secret
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.policy_file import read_policy
from aclcmp.orchestrator.submit.job_section import Section

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
"""Patterns of files in a working directory that are never uploaded."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One job as the cluster gets it."""

    job_id: str
    entrypoint: str
    """A line for the shell of the head node."""
    run_dir: str
    """The run directory there, as a word of such a line: it may hold $HOME."""
    variables: Mapping[str, str] = field(repr=False)
    """Variables of the job's environment: secrets are here and not in the line, which logs and dashboards show."""
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
    for each in options_of(JobOptions):
        value = getattr(section, each.name)
        if each.takes_pairs:
            pairs = [f"{name}={text}" for name, text in value.items() if not is_secret(name, text)]
            words += [word for pair in pairs for word in (each.flag, pair)]
        elif value != each.default or each.name == "ranks":
            words += [each.flag] if value is True else [each.flag, as_text(value)]
    return words


def on_cluster(folder: str) -> str:
    """Return a folder on the cluster as a word for its shell; only `~/` and $HOME mean anything there."""
    if folder.startswith("~/"):
        return f'"${{HOME:-/tmp}}"/{shlex.quote(folder[2:])}'
    return shlex.quote(folder)


def pack_request(request: bytes) -> str:
    """Return bytes as one word that every shell leaves alone."""
    return base64.urlsafe_b64encode(zlib.compress(request, 9)).decode()


def _working_dir(section: Section, beside: Path) -> Path | None:
    """Return the folder that is uploaded. Raises UsageError where it, or what the job names within it, is wrong."""
    if section.working_dir is None:
        return None
    folder = (beside / Path(section.working_dir).expanduser()).resolve()
    if not folder.is_dir():
        raise UsageError(f"working_dir {section.working_dir}: {folder} is no folder here")

    def read_script(name: str) -> bytes:
        if not _is_uploaded(name):
            raise FileNotFoundError(name)
        with (folder / name).open("rb") as file:
            return file.read(MAX_SCRIPT)

    if refusal := find_refusal(section, as_key, read_script):
        raise UsageError(refusal.text)
    program = split_command(section.exec)[0]
    if "/" in program and _is_uploaded(program) and not (folder / program).is_file():
        raise UsageError(f"exec {program}: no such file in the working_dir {folder}")
    if section.policy is not None and _is_uploaded(str(section.policy)):
        if not (folder / section.policy).is_file():
            raise UsageError(f"policy {section.policy}: no such file in the working_dir {folder}")
        read_policy(folder / section.policy)
    profile = None if section.floor in REPEATS else section.floor
    if profile is not None and _is_uploaded(profile) and not (folder / profile).is_file():
        raise UsageError(f"floor {profile}: no such profile in the working_dir {folder}")
    return folder


def _is_uploaded(path: str) -> bool:
    """Check whether a path of a section is within the working directory."""
    return path[0] not in "/~"

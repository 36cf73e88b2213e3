"""From a job section to what runs on the cluster: one shell line, its variables, its run directory."""

from __future__ import annotations

import base64
import itertools
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
from aclcmp.orchestrator.core.option_fields import OptionField, as_key, as_text, options_of
from aclcmp.orchestrator.core.redaction import HIDDEN, is_secret
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.policy_file import read_policy
from aclcmp.orchestrator.submit.job_section import OF_CHECK, Section

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
    if of_engine := _check_words(section)[1]:
        line += f" -- {shlex.join(of_engine)}"
    is_check = section.check is not None  # which takes no variables: its ranks have those of the job
    secret = {name: value for name, value in section.env.items() if is_check or is_secret(name, value)}
    return Submission(job_id, line, run_dir, secret, folder, (*ALWAYS_EXCLUDED, *section.excludes))


def arguments(section: Section) -> list[str]:
    """Return the command line that does what a section says, without engine options and secret variables."""
    if section.check is not None:
        shared = (each for each in options_of(JobOptions) if each.name in OF_CHECK)
        return [
            "aclcmp",
            "check",
            *_check_words(section)[0],
            *(word for each in shared for word in _flag_of(each, section)),
        ]
    words = ["aclcmp", "run"]
    for each in options_of(JobOptions):
        if each.takes_pairs:
            pairs = [
                f"{name}={text}" for name, text in getattr(section, each.name).items() if not is_secret(name, text)
            ]
            words += [word for pair in pairs for word in (each.flag, pair)]
        else:
            words += _flag_of(each, section)
    return words


def _check_words(section: Section) -> tuple[list[str], list[str]]:
    """Return what stands behind `aclcmp check`, and the engine's options behind `--`."""
    words = list(split_command(section.check or ""))
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def _flag_of(option: OptionField, section: Section) -> list[str]:
    """Return an option as words; none where it is left as it is by default."""
    value = getattr(section, option.name)
    if value == option.default and option.name != "ranks":
        return []
    return [option.flag] if value is True else [option.flag, as_text(value)]


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
    words = _check_words(section)[0]
    for option, name in itertools.pairwise(words):
        if option == "--prompts" and _is_uploaded(name) and not (folder / name).is_file():
            raise UsageError(f"check --prompts {name}: no such file in the working_dir {folder}")
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

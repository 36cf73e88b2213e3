"""The job section of a cluster file: the options of `aclcmp run` by the same names, checked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.label_filter import parse_labels, parse_tasks
from aclcmp.orchestrator.core.job import RANK_VARIABLES, VISIBILITY_VARIABLES, Device, Fetch, Launcher, Visibility
from aclcmp.orchestrator.errors import FailOn, UsageError
from aclcmp.orchestrator.inputs.user_file import meant

NOT_OPTIONS = frozenset({"working_dir", "excludes", "output"})
"""Keys that are no option of `aclcmp run` on the cluster as they stand."""

_NAME = re.compile(r"[^\W\d]\w*\Z")


def _command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into words: {error}") from None
    if not words or not words[0]:
        raise ValueError('give a command, e.g. "python run.py"')
    return text


def _variables(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not _NAME.match(name) or "\0" in value:
            raise ValueError(f"{name!r} is not a variable's name")
        if name in RANK_VARIABLES or name in VISIBILITY_VARIABLES.values() or name.startswith("ACLCMP_"):
            raise ValueError(f"aclcmp sets {name} for every rank; it cannot be overridden")
    return env


def _folder(path: str) -> str:
    if not (path.startswith("~/") or PurePosixPath(path).is_absolute()):
        raise ValueError(f"{path!r} is relative; give a folder on the cluster, absolute or below ~/")
    return path


def _checked_labels(pattern: str) -> str:
    try:
        parse_labels(pattern)
    except LabelError as error:
        raise ValueError(str(error)) from None
    return pattern


def _checked_tasks(text: str) -> str:
    try:
        if text:
            parse_tasks(text)
    except LabelError as error:
        raise ValueError(str(error)) from None
    return text


def _not_empty(value: Any) -> Any:
    if value is None or value == "":
        raise ValueError("nothing stands here; give a value or leave the key out")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a NUL character stands here; no command or path can hold one")
    return value


Text = Annotated[str, BeforeValidator(_not_empty)]


class Section(BaseModel):
    """A job as a user asks for it; field names are the options', with `_` for `-`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exec: Annotated[Text, AfterValidator(_command)]
    ranks: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] | None = None
    device: Device = Device.AUTO
    env: Annotated[dict[str, str], AfterValidator(_variables)] = {}
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    visibility: Visibility = Visibility.NODE
    launcher: Launcher = Launcher.RAY
    strict: bool = False
    no_compare: bool = False
    low_level: bool = False
    clean: bool = False
    labels: Annotated[str, AfterValidator(_checked_labels)] = ""
    tasks: Annotated[str, AfterValidator(_checked_tasks)] = ""
    capture: Capture = Capture.FULL
    policy: Text | None = None
    """A file, by its path within `working_dir` or on the cluster."""
    floor: Text | None = None
    fail_on: FailOn | None = None
    fetch: Fetch = Fetch.REPORT
    stop_at: Literal["first-divergence"] | None = None
    output: Annotated[Text, AfterValidator(_folder)] | None = None
    """The run directory on the cluster; None: ~/aclcmp-runs/<job id> there."""
    working_dir: Text | None = None
    """A folder here that is uploaded; the command starts in its copy. None: nothing is uploaded."""
    excludes: tuple[Text, ...] = ()
    """What of `working_dir` is not uploaded, as in a .gitignore."""

    @model_validator(mode="after")
    def _fits_together(self) -> Section:
        if self.nodes is not None and self.ranks % self.nodes:
            raise ValueError(f"{self.ranks} ranks cannot be spread evenly over {self.nodes} nodes")
        if self.clean and self.no_compare:
            raise ValueError("clean removes dumps that match, and no_compare compares none; give one of them")
        return self


def read_section(found: object, where: str) -> Section:
    """Check a job section, its values text or typed. Raises UsageError that begins with `where`."""
    if not isinstance(found, Mapping):
        raise UsageError(f"{where}: the job is a mapping such as `exec: python run.py`, `ranks: 8`")
    try:
        return Section.model_validate(dict(found))
    except ValidationError as error:
        raise UsageError(f"{where}{_words(error)}") from None


def _words(error: ValidationError) -> str:
    """The first thing that is wrong, where it is, and what may have been meant."""
    first = error.errors()[0]
    place = "".join(f"[{each + 1}]" if isinstance(each, int) else f".{each}" for each in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{place} is not known{meant(str(first['loc'][-1]), list(Section.model_fields))}"
    if first["type"] == "missing":
        return f"{place} is missing"
    message = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    return f"{place}: {message[0].lower()}{message[1:]}"

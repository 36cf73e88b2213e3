"""The job section of a cluster file: the options of `aclcmp run`, or `aclcmp check`, by the same names, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from aclcmp.orchestrator.core.job import JobOptions, split_command
from aclcmp.orchestrator.core.option_checks import Refusal, find_refusal
from aclcmp.orchestrator.core.option_fields import as_key, options_of
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.user_file import did_you_mean

_NAME = re.compile(r"[^\W\d]\w*\Z")
OF_CHECK = ("ranks", "device", "timeout", "policy", "fail_on")
"""Options of a section that `aclcmp check` takes too. Variables are those of its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(JobOptions):
    """A job as a user asks for it; field names are the options', with `_` for `-`."""

    output: str | None = None
    """The run directory on the cluster; None: ~/aclcmp-runs/<job id> there."""
    working_dir: str | None = None
    """A folder here that is uploaded; the command starts in its copy. None: nothing is uploaded."""
    check: str | None = None
    """What stands behind `aclcmp check`, in place of a command: "MODEL --prompts FILE [-- ENGINE OPTIONS]"."""
    excludes: tuple[str, ...] = ()
    """What of `working_dir` is not uploaded, as in a .gitignore."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def read_section(found: object, where: str) -> Section:
    """Check a job section, its values text or typed. Raises UsageError that begins with `where`."""
    if not isinstance(found, Mapping):
        raise UsageError(f"{where}: the job is a mapping such as `exec: python run.py`, `ranks: 8`")
    if wrong := _find_wrong_text(found):
        raise UsageError(f"{where}{wrong}")
    if found.get("check") is not None:
        if "exec" in found:
            raise UsageError(f"{where}.check: it stands in place of exec; give one of them")
        try:
            split_command(str(found["check"]))
        except ValueError as error:
            raise UsageError(f"{where}.check: {error}") from None
        found = {**found, "exec": f"aclcmp check {found['check']}"}
    try:
        section = _schema().validate_python(dict(found))
    except ValidationError as error:
        raise UsageError(f"{where}{_words(error)}") from None
    if refusal := _find_wrong_place(section) or find_refusal(section, as_key):
        raise UsageError(f"{where}{place_refusal(refusal)}")
    return section


def place_refusal(refusal: Refusal) -> str:
    """Return the text of a refusal behind the place of the section that it concerns."""
    is_key = refusal.name == "env" and refusal.part
    return f"{f'.{refusal.name}' * bool(refusal.name)}{f'.{refusal.part}' if is_key else ''}: {refusal.text}"


def keys() -> list[str]:
    """Return the names of all keys of a section: the options of a run first."""
    names = [each.name for each in options_of(JobOptions)]
    return names + [each.name for each in fields(Section) if each.name not in names]


@cache
def _schema() -> TypeAdapter[Section]:
    return TypeAdapter(Section)


def _find_wrong_text(found: Mapping[Any, Any]) -> str:
    """Return what is wrong with a text that no type refuses, behind its key; "" if nothing is."""
    may_be_empty = {each.name for each in fields(Section) if each.default == ""}
    for key, value in found.items():
        for number, text in enumerate(value if isinstance(value, list) else [value], start=1):
            place = f".{key}[{number}]" if isinstance(value, list) else f".{key}"
            if text in ("", None) and key not in may_be_empty:
                return f"{place}: nothing stands here; give a value or leave the key out"
            if isinstance(text, str) and "\0" in text:
                return f"{place}: a NUL character stands here; no command or path can hold one"
    return ""


def _find_wrong_place(section: Section) -> Refusal | None:
    """Return what is wrong with a section by itself, which passes through shells to another host."""
    for name in section.env:
        if not _NAME.match(name):
            return Refusal("this is not a variable's name", "env", repr(name))
    if section.check is not None:
        for each in options_of(JobOptions):
            if each.name not in ("exec", "env", *OF_CHECK) and getattr(section, each.name) != each.default:
                return Refusal("aclcmp check takes no such option; leave it out", each.name)
    output = section.output
    if output is not None and not (output.startswith("~/") or PurePosixPath(output).is_absolute()):
        return Refusal(f"{output!r} is relative; give a folder on the cluster, absolute or below ~/", "output")
    return None


def _words(error: ValidationError) -> str:
    """Return the first thing that is wrong, where it is, and what may have been meant."""
    first = error.errors()[0]
    place = "".join(f"[{each + 1}]" if isinstance(each, int) else f".{each}" for each in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{place} is not known{did_you_mean(str(first['loc'][-1]), keys())}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{place} is missing"
    message = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    return f"{place}: {message[0].lower()}{message[1:]}"

"""The policy file (TOML): limits, floors, and what may differ, checked; docs/verdict.md shows one."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.globs import glob_regex
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.errors import FailOn, UsageError
from aclcmp.orchestrator.inputs.user_file import did_you_mean, nearest, read_user_file
from aclcmp.orchestrator.judge.dtype_limits import RELATIVE
from aclcmp.orchestrator.judge.policy import Excuse, JumpRule, LimitRule, Policy, Scope

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 16 << 20
_DEFAULT = Policy()


def _glob(pattern: str) -> str:
    try:
        glob_regex(pattern)
    except LabelError as error:
        raise ValueError(str(error)) from None
    return pattern


def _dtype(name: str) -> str:
    if name not in DTYPES:
        raise ValueError(f"{name!r} is no dtype{did_you_mean(name, list(DTYPES))}")
    return name


def _limited_dtype(name: str) -> str:
    if name not in RELATIVE:
        raise ValueError(f"{name!r} has no limits of its own{did_you_mean(name, list(RELATIVE))}")
    return name


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_AboveOne = Annotated[float, Field(gt=1, allow_inf_nan=False, strict=True)]


class _PolicyTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class _LimitsTable(_PolicyTable):
    warn: Positive
    fail: Positive

    @model_validator(mode="after")
    def _in_order(self) -> _LimitsTable:
        if self.warn > self.fail:
            raise ValueError(f"warn ({self.warn:g}) is above fail ({self.fail:g})")
        return self


class _ScopeTable(_PolicyTable):
    pattern: Annotated[str, AfterValidator(_glob)] = "**"
    dtype: Annotated[str, AfterValidator(_dtype)] = ""
    level: Literal["op", "layer", "model", "high", "low"] | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.pattern, self.dtype, self.level or "")


class _Label(_ScopeTable, _LimitsTable):
    pass


class _ExcuseTable(_ScopeTable):
    pattern: Annotated[str, AfterValidator(_glob)]
    reason: str = ""
    ranks: tuple[Annotated[int, Field(ge=0, strict=True)], ...] | None = None

    def excuse(self, up_to: float | None = None) -> Excuse:
        return Excuse(self.scope, self.reason, up_to, None if self.ranks is None else frozenset(self.ranks))


class _Allow(_ExcuseTable):
    up_to: Positive | None = None


class _JumpTable(_PolicyTable):
    on: Annotated[bool, Field(strict=True)] = _DEFAULT.jump.on
    factor: _AboveOne = _DEFAULT.jump.factor
    record: _AboveOne = _DEFAULT.jump.record
    factor_of_rows: _AboveOne = _DEFAULT.jump.factor_of_rows
    record_of_rows: _AboveOne = _DEFAULT.jump.record_of_rows


class _PolicyFile(_PolicyTable):
    """A whole policy file; the names are those that a user writes."""

    fail_on: FailOn = FailOn.ANY
    own_factor: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] = _DEFAULT.own_factor
    limits: dict[Annotated[str, AfterValidator(_limited_dtype)], _LimitsTable] = {}
    label: tuple[_Label, ...] = ()
    allow: tuple[_Allow, ...] = ()
    ignore: tuple[_ExcuseTable, ...] = ()
    floor: dict[FloorSource, _LimitsTable] = {}
    jump: _JumpTable = _JumpTable()


def read_policy(path: Path) -> Policy:
    """Read a policy file. Raises UsageError, with the file and the place in it, for what is none."""
    content = read_user_file(path, _MOST_BYTES, "policy file", "a policy file (TOML)")
    try:
        table = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start + 1} is not UTF-8; is this a policy file?") from None
    except (ValueError, RecursionError) as error:  # no TOML, a number of too many digits, brackets in brackets
        raise UsageError(f"{path}: {error}") from None
    return policy_of(table, str(path), path.name)


def policy_of(table: Mapping[str, Any], source: str, name: str) -> Policy:
    """Return the policy of a table with the words of a policy file. Raises UsageError, with its `source`, for none."""
    try:
        found = _PolicyFile.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{source}: {_words(error)}") from None
    return Policy(
        name=name,
        fail_on=found.fail_on,
        limits={**_DEFAULT.limits, **{name: (each.warn, each.fail) for name, each in found.limits.items()}},
        rules=tuple(LimitRule(each.scope, each.warn, each.fail) for each in found.label),
        allow=tuple(each.excuse(each.up_to) for each in found.allow),
        ignore=tuple(each.excuse() for each in found.ignore),
        floors={**_DEFAULT.floors, **{source: (each.warn, each.fail) for source, each in found.floor.items()}},
        jump=JumpRule(**found.jump.model_dump()),
        own_factor=found.own_factor,
    )


def _words(error: ValidationError) -> str:
    """Return the first error, of all names that are not known the first: its place, reason, and what was meant."""
    errors = error.errors()
    first = min(errors, key=lambda each: not (each["type"] == "extra_forbidden" or "[key]" in each["loc"]))
    place = [each for each in first["loc"] if each != "[key]"]
    where = "".join(f"[{each + 1}]" if isinstance(each, int) else f".{each}" for each in place).lstrip(".")
    if first["type"] == "extra_forbidden":
        return f"{where} is not known{did_you_mean(str(place[-1]), _names(place[:-1]))}"
    if first["type"] == "enum" and "[key]" in first["loc"]:
        return f"{where} is not known{did_you_mean(str(place[-1]), [source.value for source in FloorSource])}"
    if first["type"] == "model_type":
        return f"{where}: should be a table with {', '.join(_names(place))}"
    message = first["msg"].removeprefix("Value error, ")
    message = (message[0].lower() + message[1:]).replace("a valid tuple", "an array")
    if first["type"] in ("enum", "literal_error") and isinstance(first["input"], str):
        message += nearest(first["input"], re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    return f"{where}: {message}" if where else message


def _names(place: list[str | int]) -> list[str]:
    """Return the names that are allowed at a place of the file."""
    model: type[BaseModel] = _PolicyFile
    for each in place:
        if isinstance(each, str) and each in model.model_fields:
            model = _model_in(model.model_fields[each].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, UnionType, Annotated):
        return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
    return None

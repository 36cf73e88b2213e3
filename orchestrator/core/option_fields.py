"""Options as fields of a dataclass: `Annotated[type, Option(...)]`, read for command lines and schemas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any, get_origin, get_type_hints


class HelpGroup(str, Enum):
    """Headings of `--help`, in their order."""

    RANKS = "Ranks"
    RAY = "Ray"
    CAPTURE = "Capture"
    JUDGING = "Judging"
    OUTPUT = "Output"


@dataclass(frozen=True, slots=True)
class Option:
    """Description of one option, for all that take it."""

    help: str
    group: HelpGroup
    refuse: Callable[[Any], tuple[str, str] | None] = lambda _: None
    """Return the part of a value that is wrong ("" for all of it) and the reason, or None."""
    metavar: str | None = None
    flag: str = ""
    """Name on the command line; "": the field's, with `-` for `_`."""
    override: bool = False
    """`aclcmp submit` takes it too, and it counts instead of what the cluster file says."""


@dataclass(frozen=True, slots=True)
class OptionField:
    """One option of a dataclass."""

    name: str
    type: Any
    default: Any
    """MISSING where a value is required."""
    option: Option

    @property
    def flag(self) -> str:
        """Name on the command line."""
        return self.option.flag or as_option(self.name)

    @property
    def takes_pairs(self) -> bool:
        """True for a mapping, which a command line gives pair by pair."""
        return get_origin(self.type) is Mapping

    @property
    def required(self) -> bool:
        """True where there is no default."""
        return self.default is MISSING


def options_of(owner: type) -> tuple[OptionField, ...]:
    """Return the options among the fields of a dataclass: by group, within it the required ones first."""
    types = get_type_hints(owner, include_extras=True)
    found = [
        OptionField(each.name, types[each.name].__origin__, _default(each), option)
        for each in fields(owner)
        for option in getattr(types[each.name], "__metadata__", ())
        if isinstance(option, Option)
    ]
    order = list(HelpGroup)
    return tuple(sorted(found, key=lambda each: (order.index(each.option.group), not each.required)))


def as_option(name: str, value: object = None) -> str:
    """Spell an option as on the command line, e.g. `--stop-at first-divergence`."""
    flag = "--" + name.replace("_", "-")
    return flag if value is None else f"{flag} {as_text(value)}"


def as_key(name: str, value: object = None) -> str:
    """Spell an option as in a cluster file, e.g. `stop_at: first-divergence`; a number is spelled `3 ranks`."""
    if isinstance(value, int):
        return f"{value} {name}"
    return name if value is None else f"{name}: {as_text(value)}"


def as_text(value: object) -> str:
    """Return a value as it is typed; a float keeps 15 digits."""
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()

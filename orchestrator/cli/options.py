"""The options of `core/job.py` as parameters of commands, and the values of the command line as those options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from aclcmp.orchestrator.core.job import JobOptions, RunOptions
from aclcmp.orchestrator.core.option_fields import OptionField, options_of
from aclcmp.orchestrator.core.redaction import redact
from aclcmp.orchestrator.errors import UsageError

Options = TypeVar("Options", bound=JobOptions)
Command = Callable[..., int]


class GroupedCommand(TyperCommand):
    """A command that shows each group of options (typer's `rich_help_panel`) below a heading, as plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then the groups in the order in which they come."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            if (line := each.get_help_record(ctx)) is not None:
                other = "Arguments" if each.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(each, "rich_help_panel", None) or other, []).append(line)
        for heading, lines in groups.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


def typer_option(name: str) -> Any:
    """Return the description of an option of `aclcmp run`, for another command that takes it too."""
    return _typer_info(next(each for each in options_of(RunOptions) if each.name == name))


def takes(owner: type[JobOptions]) -> Callable[[Command], Command]:
    """Give a command, instead of its `**options`, all options of a dataclass."""
    return lambda command: _with_parameters(command, [_parameter(each) for each in options_of(owner)])


def takes_overrides(command: Command) -> Command:
    """Give a command, instead of its `**options`, those that count instead of what a cluster file says."""
    return _with_parameters(
        command, [_parameter(each, override=True) for each in options_of(JobOptions) if each.option.override]
    )


def make_options(owner: type[Options], values: Mapping[str, Any]) -> Options:
    """Return the options that a command line gives. Raises UsageError for variables that are none."""
    return owner(**{each.name: _value(each, values[each.name]) for each in options_of(owner)})


def given_overrides(values: Mapping[str, Any]) -> dict[str, object]:
    """Return the options that a command line gives, without those that it leaves out. Raises UsageError."""
    names = {each.name: each for each in options_of(JobOptions)}
    return {name: _value(names[name], value) for name, value in values.items() if value not in (None, [])}


def parse_variables(pairs: Sequence[str]) -> dict[str, str]:
    """Return the variables that --env NAME=VALUE gives. Raises UsageError for what has no name or no `=`."""
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {redact(pair)!r} is not of the form NAME=VALUE")
        variables[name] = value
    return variables


def _with_parameters(command: Command, parameters: list[inspect.Parameter]) -> Command:
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *parameters])  # type: ignore[attr-defined]
    return command


def _parameter(each: OptionField, *, override: bool = False) -> inspect.Parameter:
    kind: Any = list[str] if each.takes_pairs else each.type
    default = inspect.Parameter.empty if each.required else each.default
    if override or each.takes_pairs:
        kind, default = kind | None, None
    info = _typer_info(each)
    if override:
        info.help += " Besides the file's." if each.takes_pairs else " Instead of the file's."
    annotation = Annotated[kind, info]
    return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typer_info(each: OptionField) -> Any:
    return typer.Option(
        each.flag,
        help=each.option.help,
        metavar=each.option.metavar,
        show_default=each.default not in ("", None),
        rich_help_panel=each.option.group.value,
    )


def _value(each: OptionField, value: Any) -> Any:
    return parse_variables(value or []) if each.takes_pairs else value

"""Wrong usage: what the parser says, and what to type instead."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from aclcmp.orchestrator.errors import UsageError

_END = "--"
"""Ends the options of `aclcmp run`: the command follows."""


def with_command(arguments: Sequence[str]) -> list[str]:
    """Return arguments with the command behind `aclcmp run ... --` as that of --exec. Raises UsageError for both."""
    if arguments[0] != "run" or _END not in arguments:
        return list(arguments)
    place = arguments.index(_END)
    own, command = arguments[:place], arguments[place + 1 :]
    if any(word == "--exec" or word.startswith("--exec=") for word in own):
        raise UsageError("--exec gives the command, and so does what follows --; leave one of them out")
    return [*own, "--exec", shlex.join(command)]


def teach(error: Any, arguments: Sequence[str]) -> str:
    """Return the message of a usage error, with the nearest option first, or what to type instead."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "")
    name, context = getattr(error, "option_name", ""), error.ctx
    if context is None:
        return message
    if arguments[0] == "run" and "--exec" not in arguments:
        own, command = _split_at_command(arguments[1:], context.command.params)
        if command and name not in own:
            return f"write the command behind --: aclcmp {shlex.join(['run', *own, _END, *command])}"
        if getattr(getattr(error, "param", None), "name", "") == "exec":
            return 'no command; give --exec "python run.py", or write it behind --: aclcmp run -- python run.py'
    if isinstance(getattr(error, "possibilities", None), Sequence | None) and name:
        options = [option for each in context.command.params for option in each.opts]
        near = get_close_matches(name, options, 3, 0.6)
        return f"no option {name}; " + (
            f"did you mean {' or '.join(near)}?" if near else f"see {context.command_path} -h"
        )
    return message


def _split_at_command(words: Sequence[str], parameters: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return the options at the beginning, each with its value, and the words behind them."""
    flags = {option for each in parameters if getattr(each, "is_flag", False) for option in each.opts}
    known = {option for each in parameters for option in each.opts}
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 2 if words[place] in known - flags else 1
    return list(words[:place]), list(words[place:])

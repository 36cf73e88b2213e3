"""Options that several commands take."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from aclcmp.orchestrator.core.redaction import redacted
from aclcmp.orchestrator.errors import UsageError


def split_command(command: str) -> tuple[str, ...]:
    """Split the text of --exec into words as a shell does. Raises UsageError when a quote is not closed."""
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--exec {redacted(command)!r} cannot be split into words: {error}") from None


def parse_variables(pairs: Sequence[str]) -> dict[str, str]:
    """Return the variables that --env NAME=VALUE gives. Raises UsageError for what has no name or no `=`."""
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {redacted(pair)!r} is not of the form NAME=VALUE")
        variables[name] = value
    return variables

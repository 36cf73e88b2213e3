"""Globs over dotted names: `*` matches within a part, `**` across parts."""

from __future__ import annotations

import re
import warnings

from aclcmp.labeling.errors import LabelError

TOKEN = re.compile(r"\*\*\.?|\*|\?|\[[^\]]+\]|[^*?\[]+|\[")
"""The tokens of a glob. `**.` is one token, because it may match nothing at all."""


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression with one group for each star. Raises LabelError for an invalid glob."""

    def part(token: str) -> str:
        if token == "**.":
            return r"(?:(.*)\.)?"
        if token == "**":
            return "(.*)"
        if token == "*":
            return r"([^.]*)"
        if token == "?":
            return r"[^.]"
        if len(token) > 1 and token[0] == "[":
            negation, chars = ("^", token[2:-1]) if token[1] == "!" and len(token) > 3 else ("", token[1:-1])
            return "[" + negation + re.sub(r"([^\w-])", r"\\\1", chars) + "]"
        return re.escape(token)

    if not isinstance(pattern, str):
        raise LabelError(f"{pattern!r} is not a pattern; use a glob like 'layers.*.mlp' or a compiled re.Pattern")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # [+--] may become a set difference in a later Python
            return re.compile("".join(part(token) for token in TOKEN.findall(pattern)))
    except re.error as error:
        raise LabelError(f"{pattern!r} is not a pattern: {error}") from None

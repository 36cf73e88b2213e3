"""Files of rules that people write: one `pattern -> something` a line, `#` for comments, double quotes where needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.user_file import read_user_file
from aclcmp.orchestrator.plan.id_rules import quote_id

Rule = TypeVar("Rule")

_MOST_BYTES = 16 << 20
_LONGEST_LINE = 8192
_BARE = re.compile(r"(?:(?!(?:^|\s)(?:->(?:\s|$)|#)).)*")
"""Text up to an arrow or a comment that has a blank before it."""


def read_rules(path: Path, form: str, rule: Callable[[str | None, str | None, int], Rule]) -> list[Rule]:
    """Read a file of rules of a `form`, e.g. "golden-pattern -> actual-pattern".

    `rule` makes one of what stands before and behind the arrow, None for nothing or `-`, and the line's number; it may
    raise ValueError. Raises UsageError, with the file and the line, for what is no rule.
    """
    content = read_user_file(path, _MOST_BYTES, "file of patterns", f"a file of '{form}' lines")
    rules = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            sides = _sides(line, form)
            if sides is not None:
                rules.append(rule(*sides, number))
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
    return rules


def _sides(line: bytes, form: str) -> tuple[str | None, str | None] | None:
    """Return both sides of a line's arrow, None for a line without a rule. Raises ValueError."""
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"a line of {len(line)} bytes; {_LONGEST_LINE} are the most, is this a file of patterns?")
    try:
        text = line.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} of the line is not UTF-8; is this a file of patterns?") from None
    if not text or text[0] == "#":
        return None
    if control := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        raise ValueError(f"the control character {control[0]!r}; write an id that has one in double quotes, escaped")
    before, rest = first_side(text)
    if not re.match(r"->(?:\s|$)", rest):
        raise ValueError(f"no arrow in {quote_id(text)}; write '{form}', with blanks around ->")
    behind, rest = first_side(rest[2:].lstrip())
    if rest and rest[0] != "#":
        raise ValueError(f"{quote_id(rest)} after the rule; one rule a line, ids with blanks in double quotes")
    return before, behind


class Quoted(str):
    """A side that stood in quotes: it is as it is written."""

    __slots__ = ()


def first_side(text: str) -> tuple[str | None, str]:
    """Split the text into its first side, None for nothing or `-`, and the rest.

    Raises ValueError for quotes that are not closed.
    """
    if text.startswith('"'):
        try:
            pattern, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            raise ValueError(f"the quotes of {quote_id(text)} are not closed, or hold a wrong escape") from None
        return Quoted(pattern), text[end:].lstrip()
    found = _BARE.match(text)
    bare = found[0] if found else ""
    pattern = bare.strip()
    return (None if pattern in ("", "-") else pattern), text[len(bare) :].lstrip()

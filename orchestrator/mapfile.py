"""The file of patterns between two runs' label ids: one `golden-pattern -> actual-pattern` a line, `#` for comments.

`-` on one side drops what the other side matches. An id that would not stand for itself (blanks, `#`, quotes, a plain
`-`) is written in double quotes with JSON's escapes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.plan.mapping import IdMap, Rule, shown
from aclcmp.orchestrator.plan.suggest import CERTAIN, Suggestion

_MOST_BYTES = 16 << 20
_LONGEST_LINE = 8192
_PLAIN = re.compile(r'(?!(?:-|->)$)[^\s#"]+')
_BARE = re.compile(r"(?:(?!(?:^|\s)(?:->(?:\s|$)|#)).)*")
"""Up to an arrow or a comment, each with a blank before it."""


def read_map(path: Path) -> IdMap:
    """Read a file of patterns. Raises UsageError, with the file and the line, for what is none."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a file of 'golden-pattern -> actual-pattern' lines") from None
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path} has more than {_MOST_BYTES >> 20} MiB; that is no file of patterns")
    rules = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            rule = _rule(line, number)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
        if rule is not None:
            rules.append(rule)
    return IdMap(rules, str(path))


def _rule(line: bytes, number: int) -> Rule | None:
    """Return the rule of a line, None for one without. Raises ValueError."""
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
    golden, rest = _side(text)
    if not re.match(r"->(?:\s|$)", rest):
        raise ValueError(f"no arrow in {shown(text)}; write 'golden-pattern -> actual-pattern', with blanks around ->")
    actual, rest = _side(rest[2:].lstrip())
    if rest and rest[0] != "#":
        raise ValueError(f"{shown(rest)} after the rule; one rule a line, ids with blanks in double quotes")
    return Rule(golden, actual, number)


def _side(text: str) -> tuple[str | None, str]:
    """Return the pattern at the beginning of the text, None for nothing or `-`, and what comes after it."""
    if text.startswith('"'):
        try:
            pattern, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            raise ValueError(f"the quotes of {shown(text)} are not closed, or hold a wrong escape") from None
        return str(pattern), text[end:].lstrip()
    found = _BARE.match(text)
    bare = found[0] if found else ""
    pattern = bare.strip()
    return (None if pattern in ("", "-") else pattern), text[len(bare) :].lstrip()


def quoted(pattern: str | None) -> str:
    """Return one side of a rule as it stands in the file."""
    if pattern is None:
        return "-"
    return pattern if _PLAIN.fullmatch(pattern) and pattern.isprintable() else json.dumps(pattern)


def rule_text(rule: Rule) -> str:
    """Return a rule as it stands in the file."""
    return f"{quoted(rule.golden)} -> {quoted(rule.actual)}"


def suggestion_text(suggestion: Suggestion, golden: str, actual: str) -> str:
    """Return a suggestion between two runs of these names as a file of patterns; the uncertain is commented out."""
    proposals = suggestion.proposals
    certain = sum(proposal.certain for proposal in proposals)
    lines = [
        "# golden-pattern -> actual-pattern; * is anything within a dotted part, ** across; the first match counts",
        "# - on one side drops what the other side matches; what no rule matches keeps its name",
        f"# golden: {json.dumps(golden)}",
        f"# actual: {json.dumps(actual)}",
        f"# the same in both: {_count(suggestion.same, 'id')}; certain (score {CERTAIN} or more): "
        f"{_count(certain, 'rule')}; not certain and commented out, to be looked at: {len(proposals) - certain}",
    ]
    for proposal in proposals:
        lines += ["", f"# {proposal.score:.2f}, {_count(proposal.labels, 'label')}: {'; '.join(proposal.reasons)}"]
        lines.append(("" if proposal.certain else "# ") + rule_text(proposal.rule))
    for side, ids in (("golden", suggestion.golden_only), ("actual", suggestion.actual_only)):
        if ids:
            lines += ["", f"# nothing found for {_count(len(ids), 'id')} of {side}:"]
            lines += [f"#   {quoted(data_id)}" for data_id in ids]
    return "\n".join(lines) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def write_suggestion(path: Path, suggestion: Suggestion, golden: str, actual: str) -> None:
    """Write a suggestion to a new file. Raises UsageError where there is one already, or it cannot be written."""
    text = suggestion_text(suggestion, golden, actual)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists, maybe with your corrections; give another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a file that can be written") from None

"""The file of patterns between two runs' label ids: one `golden-pattern -> actual-pattern` a line, `#` for comments.

`-` on one side drops what the other side matches. Several ids of one side that are one of the other are joined by ` | `
where they lie side by side along the last dimension, by ` + ` where they are added. `task:3 -> task:0` pairs tasks.
`rank:4-7` before a pattern: labels of these ranks get the name of the other side, before all other rules. An id that
would not stand for itself (blanks, `#`, `|`, quotes, a plain `-` or `task:3`) is written in double quotes with JSON's
escapes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from aclcmp.orchestrator.inputs.rule_file import Quoted, first_side, read_rules
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule, JoinRule, RankRule, TaskRule, needs_quotes, quote_id

_JOIN = re.compile(r"\s+([+|])\s+")
_TASK = re.compile(r"task:(\d{1,9})")
_RANKS = re.compile(r"rank:(\S*)(?:\s+(.*))?", re.DOTALL)
_SPAN = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def read_map(path: Path) -> IdMap:
    """Read a file of patterns. Raises UsageError, with the file and the line, for a wrong one."""
    return IdMap(read_rules(path, "golden-pattern -> actual-pattern", _rule), str(path))


def _rule(golden: str | None, actual: str | None, line: int) -> IdRule | JoinRule | TaskRule | RankRule:
    tasks = [_TASK.fullmatch(side) for side in (golden, actual) if side is not None and not isinstance(side, Quoted)]
    if any(tasks):
        numbers = [int(found[1]) if (found := _TASK.fullmatch(side or "-")) else None for side in (golden, actual)]
        if None in tasks:
            raise ValueError("a task needs a task on the other side, or - to drop it, e.g. task:3 -> task:0")
        return TaskRule(numbers[0], numbers[1], line)
    golden, of_golden = _of_ranks(golden)
    actual, of_actual = _of_ranks(actual)
    if of_golden and of_actual:
        raise ValueError("rank: on both sides; the other side is the name that all ranks have: write a line for each")
    (goldens, one), (actuals, other) = _parts(golden), _parts(actual)
    if of_golden or of_actual:
        if one or other:
            raise ValueError("ids of some ranks are not joined in the same line; name them first, then join the names")
        side, own, name = ("golden", golden, actual) if of_golden else ("actual", actual, golden)
        return RankRule(name, own or "", side, of_golden or of_actual, line)
    if not one and not other:
        return IdRule(golden, actual, line)
    if (one and other) or not goldens or not actuals:
        raise ValueError("several ids joined by + or | on one side need one id on the other")
    return JoinRule(goldens, actuals, one or other, line)


def _of_ranks(side: str | None) -> tuple[str | None, tuple[range, ...]]:
    """Return a side's pattern, and the ranks that it is for; none for all. Raises ValueError."""
    if side is None or isinstance(side, Quoted) or (found := _RANKS.fullmatch(side)) is None:
        return side, ()
    spans = [_SPAN.fullmatch(span) for span in found[1].split(",")]
    ranks = tuple(range(int(span[1]), int(span[2] or span[1]) + 1) for span in spans if span is not None)
    if None in spans or not all(ranks) or not found[2]:
        raise ValueError(f"{quote_id(side)}: write ranks and a pattern, e.g. rank:1 layers.{{n}} or rank:0,4-7 norm")
    pattern, rest = first_side(found[2])
    if pattern is None or rest:
        raise ValueError(f"{quote_id(side)}: one pattern is needed behind the ranks; one with blanks in double quotes")
    return pattern, ranks


def _parts(side: str | None) -> tuple[tuple[str, ...], str]:
    """Return the patterns of a side, and what joins them: "+", "|", or "" for a single one. Raises ValueError."""
    if side is None or isinstance(side, Quoted):
        return (() if side is None else (side,)), ""
    words = _JOIN.split(side)
    if len(joins := set(words[1::2])) > 1:
        raise ValueError("+ and | on one side; use one of them")
    if any("|" in word for word in words[::2]):
        raise ValueError(f"{quote_id(side)}: write | with blanks around it, or an id that has one in double quotes")
    return tuple(words[::2]), "".join(joins)


def quote_pattern(pattern: str | None) -> str:
    """Return one side of a rule as the file writes it."""
    if pattern is None:
        return "-"
    return json.dumps(pattern) if needs_quotes(pattern) else pattern


def rule_text(rule: IdRule | JoinRule) -> str:
    """Return a rule as the file writes it. Ids that need quotes cannot be joined."""
    if isinstance(rule, JoinRule):
        return " -> ".join(f" {rule.how} ".join(side) for side in (rule.golden, rule.actual))
    return f"{quote_pattern(rule.golden)} -> {quote_pattern(rule.actual)}"

"""The file of patterns between two runs' label ids: one `golden-pattern -> actual-pattern` a line, `#` for comments.

`-` on one side drops what the other side matches. An id that would not stand for itself (blanks, `#`, quotes, a plain
`-`) is written in double quotes with JSON's escapes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from aclcmp.orchestrator.inputs.rule_file import read_rules
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule

_PLAIN = re.compile(r'(?!(?:-|->)$)[^\s#"]+')


def read_map(path: Path) -> IdMap:
    """Read a file of patterns. Raises UsageError, with the file and the line, for a wrong one."""
    return IdMap(read_rules(path, "golden-pattern -> actual-pattern", IdRule), str(path))


def quote_pattern(pattern: str | None) -> str:
    """Return one side of a rule as the file writes it."""
    if pattern is None:
        return "-"
    return pattern if _PLAIN.fullmatch(pattern) and pattern.isprintable() else json.dumps(pattern)


def rule_text(rule: IdRule) -> str:
    """Return a rule as the file writes it."""
    return f"{quote_pattern(rule.golden)} -> {quote_pattern(rule.actual)}"

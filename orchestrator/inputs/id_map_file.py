"""The file of patterns between two runs' label ids: one `golden-pattern -> actual-pattern` a line, `#` for comments.

`-` on one side drops what the other side matches. An id that would not stand for itself (blanks, `#`, quotes, a plain
`-`) is written in double quotes with JSON's escapes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.idmap.suggest import CERTAIN, Suggestion
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
            lines += [f"#   {quote_pattern(data_id)}" for data_id in ids]
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

"""The file of layouts that corrects those that a run declares.

It has one `[golden|actual] pattern -> layout` a line, `#` for comments. Layouts are written as reports
print them. The first rule that an id of that side matches counts.
"""

from __future__ import annotations

from pathlib import Path

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.layout import layout_from_text
from aclcmp.orchestrator.inputs.rule_file import Quoted, first_side, read_rules
from aclcmp.orchestrator.inputs.user_file import nearest
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRule, LayoutRules

_SIDES = {"golden": "pta", "pta": "pta", "actual": "acl", "acl": "acl"}


def read_layouts(path: Path) -> LayoutRules:
    """Read a file of layouts. Raises UsageError, with the file and the line, for a wrong one."""
    return LayoutRules(read_rules(path, "[golden|actual] pattern -> layout", _rule), str(path))


def _rule(before: str | None, behind: str | None, number: int) -> LayoutRule:
    if before is None or behind is None:
        raise ValueError("a pattern and a layout are needed, e.g. actual layers.*.qkv -> Shard(dim=-1)")
    first, _, rest = before.partition(" ")
    side, pattern = "acl", before
    if first in _SIDES and rest.strip():
        side = _SIDES[first]
        glob, left = first_side(rest.strip())
        if left or glob is None:
            raise ValueError(f"{rest.strip()!r} is no pattern; write one with blanks in double quotes")
        pattern = glob
    elif rest and not isinstance(before, Quoted) and (meant := nearest(first, list(_SIDES))):
        raise ValueError(f"{first!r} is no side{meant} An id that has blanks is written in double quotes")
    try:
        return LayoutRule(side, pattern, layout_from_text(behind), number)
    except LabelError as error:
        raise ValueError(str(error)) from None

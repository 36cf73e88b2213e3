"""The file of layouts that corrects those that a run declares.

It has one `[golden|actual] pattern -> layout` a line, `#` for comments. Layouts are written as reports print them.
`Rows(...)` in place of a layout tells which rows labels have: `mask="attention_mask"`, or `lengths=(5, 3)` or the id of
a label that has them, with `left=8` or `right=8` where they are padded to so many tokens; `joined=True` for calls that
follow each other, `joined="tasks"` for tasks; `by_rank=True` where each rank has data of its own. The first rule of
either kind that an id of that side matches counts.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np

from aclcmp.labeling.errors import AclcmpError, LabelError
from aclcmp.labeling.layout import layout_from_text
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.idmap.sampling import numbers_of
from aclcmp.orchestrator.inputs.rule_file import Quoted, first_side, read_rules
from aclcmp.orchestrator.inputs.user_file import nearest
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRule, LayoutRules
from aclcmp.orchestrator.plan.rank_labels import RankLabel
from aclcmp.orchestrator.plan.rows.told_rows import Numbers, RowsRule

_MOST_TOKENS = 1 << 24
"""Tokens of a request that a file may tell."""
_SIDES = {"golden": "pta", "pta": "pta", "actual": "acl", "acl": "acl"}


def read_layouts(path: Path) -> LayoutRules:
    """Read a file of layouts. Raises UsageError, with the file and the line, for a wrong one."""
    rules = read_rules(path, "[golden|actual] pattern -> layout", _rule)
    return LayoutRules(
        [rule for rule in rules if isinstance(rule, LayoutRule)],
        str(path),
        [rule for rule in rules if isinstance(rule, RowsRule)],
        _read_integers,
    )


def _read_integers(label: RankLabel) -> Numbers:
    """Return a label's values as integers, in its shape. Raises UsageError where they cannot be read, or are none."""
    if not label.source.is_whole:
        kept = f"only its {label.source.capture} was kept: label it with --capture full"
        raise UsageError(f"{label.key.label} is to tell rows, but {kept}")
    try:
        values = numbers_of(label, np.arange(math.prod(label.shape)))[:, :1]
    except (AclcmpError, OSError) as error:
        raise UsageError(f"{label.key.label} cannot be read on this host: {error}") from None
    if not np.array_equal(values, np.round(values)):
        raise UsageError(f"{label.key.label} is to tell rows, but its values are not whole numbers")
    return values.astype(np.int64).reshape(label.shape)


def _rule(before: str | None, behind: str | None, number: int) -> LayoutRule | RowsRule:
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
        if behind.startswith("Rows("):
            return RowsRule(side, pattern, number, **_rows_options(behind))
        return LayoutRule(side, pattern, layout_from_text(behind), number)
    except LabelError as error:
        raise ValueError(str(error)) from None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def _rows_options(text: str) -> dict[str, Any]:
    """Return the options of a RowsRule as they are written. Raises ValueError."""
    try:
        call = ast.parse(text, mode="eval").body
        given = {each.arg: ast.literal_eval(each.value) for each in call.keywords} if isinstance(call, ast.Call) else {}
        is_call = isinstance(call, ast.Call) and not call.args and isinstance(call.func, ast.Name)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        is_call, given = False, {}
    mask, lengths = given.pop("mask", ""), given.pop("lengths", "")
    left, right, joined = given.pop("left", 0), given.pop("right", 0), given.pop("joined", False)
    by_rank = given.pop("by_rank", False)
    sizes = all(map(_is_count, (left, right))) and not (left and right)
    numbers = isinstance(lengths, tuple) and all(map(_is_count, lengths))
    is_joined = isinstance(by_rank, bool) and (isinstance(joined, bool) or joined == "tasks")
    is_told = isinstance(mask, str) and (numbers or isinstance(lengths, str)) and not (mask and lengths)
    is_padded = not (left or right) or lengths != ""
    if not (is_call and not given and is_told and sizes and is_padded and is_joined):
        raise ValueError(
            f'{text[:200]!r}: write e.g. Rows(mask="attention_mask"), Rows(lengths="seq_lens"), '
            "Rows(lengths=(5, 3), left=8) or Rows(joined=True)"
        )
    return {
        "mask": mask,
        "lengths": lengths,
        "left": left,
        "right": right,
        "joined": "calls" if joined is True else joined or "",
        "by_rank": by_rank,
    }

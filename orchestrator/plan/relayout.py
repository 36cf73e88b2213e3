"""Layouts that are corrected afterwards: patterns over label ids, the first match of a side counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aclcmp.labeling.layout import Layout
from aclcmp.labeling.patterns import glob_regex
from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.labeling.shard.record import LabelRecord

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class LayoutRule:
    """Labels of a side ("pta" or "acl") whose ids a glob matches have a layout. Raises LabelError for no glob."""

    side: str
    pattern: str
    layout: Layout
    line: int
    regex: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", glob_regex(self.pattern))


@dataclass(frozen=True, slots=True)
class LayoutRules:
    """A file of layouts."""

    rules: Sequence[LayoutRule] = ()
    name: str = ""

    def applied(self, indices: Sequence[ShardIndex], side: str) -> tuple[list[ShardIndex], list[str]]:
        """Give the labels of a side ("" for both) their layouts; also say in words which rules no label follows."""
        rules = [rule for rule in self.rules if side in ("", rule.side)]
        found: dict[tuple[str, str], LayoutRule | None] = {}

        def changed(record: LabelRecord) -> LabelRecord:
            key = record.side, record.data_id
            if key not in found:
                matching = (r for r in rules if r.side == record.side and r.regex.fullmatch(record.data_id))
                found[key] = next(matching, None)
            rule = found[key]
            return record if rule is None else replace(record, layout=rule.layout)

        if rules:
            indices = [replace(index, records=tuple(map(changed, index.records))) for index in indices]
        used = {rule.line for rule in found.values() if rule is not None}
        unused = [f"line {rule.line}" for rule in rules if rule.line not in used]
        more = f" and {len(unused) - _MOST_NAMED:,} more" if len(unused) > _MOST_NAMED else ""
        notes = (
            [f"no label follows these rules of {self.name}: {', '.join(unused[:_MOST_NAMED])}{more}"] if unused else []
        )
        return list(indices), notes

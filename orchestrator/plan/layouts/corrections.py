"""Corrections of layouts by rules: a pattern of label ids and a layout; the first match of a side counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aclcmp.labeling.globs import glob_regex
from aclcmp.labeling.layout import Layout
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.text import note_on_unused_rules


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

    def is_for(self, rank: int) -> bool:
        """Tell whether a rank is in all groups that the layout names: several groups may have a rule each."""
        return all(placement.ranks is None or rank in placement.ranks for placement in self.layout.placements)


@dataclass(frozen=True, slots=True)
class LayoutRules:
    """A file of layouts."""

    rules: Sequence[LayoutRule] = ()
    name: str = ""

    def apply(self, indices: Sequence[ShardIndex], side: str) -> tuple[list[ShardIndex], list[str]]:
        """Give the labels of a side ("" for both) their layouts; also return notes on rules that no label follows."""
        rules = [rule for rule in self.rules if side in ("", rule.side)]
        matching: dict[tuple[str, str], list[LayoutRule]] = {}
        used: set[int] = set()

        def correct(record: LabelRecord, rank: int) -> LabelRecord:
            key = record.side, record.data_id
            if key not in matching:
                of_side = (rule for rule in rules if rule.side == record.side)
                matching[key] = [rule for rule in of_side if rule.regex.fullmatch(record.data_id)]
            rule = next((rule for rule in matching[key] if rule.is_for(rank)), None)
            if rule is None:
                return record
            used.add(rule.line)
            return replace(record, layout=rule.layout)

        if rules:
            indices = [
                replace(index, records=tuple(correct(record, index.header.rank) for record in index.records))
                for index in indices
            ]
        unused = [rule.line for rule in rules if rule.line not in used]
        return list(indices), note_on_unused_rules(unused, self.name)


NO_RULES = LayoutRules()

"""Corrections of layouts and rows by rules: a pattern of label ids and what they have; a side's first match counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aclcmp.labeling.globs import glob_regex
from aclcmp.labeling.layout import Layout
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.text import note_on_unused_rules
from aclcmp.orchestrator.plan.rows.told_rows import Reader, RowsRule, name_rows


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
    rows: Sequence[RowsRule] = ()
    read: Reader | None = None
    """Reads the labels that tell rows; needed for these."""

    def apply(self, indices: Sequence[ShardIndex], side: str) -> tuple[list[ShardIndex], list[str]]:
        """Give the labels of a side ("" for both) their layouts and rows; also return notes on rules without labels.

        Raises UsageError where a label that tells rows is missing or wrong.
        """
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
        rows = [rule for rule in self.rows if side in ("", rule.side)]
        if rows and self.read is not None:
            indices, of_rows = name_rows(indices, rows, self.read, self.name)
            used |= of_rows
        unused = sorted({*(rule.line for rule in rules), *(rule.line for rule in rows)} - used)
        return list(indices), note_on_unused_rules(unused, self.name)

    def without_tellers(self, *runs: Sequence[ShardIndex]) -> list[list[ShardIndex]]:
        """Leave out of runs the labels that tell rows on one side, and that the other side does not have."""
        told = [rule for rule in self.rows if rule.mask or (rule.lengths and isinstance(rule.lengths, str))]
        tellers: set[tuple[str, str]] = set()
        if told:
            there = {(record.side, record.data_id) for run in runs for index in run for record in index.records}
            used = (rule for rule in told if any(side == rule.side and rule.regex.fullmatch(i) for side, i in there))
            tellers = {(rule.side, str(rule.mask or rule.lengths)) for rule in used}
            tellers = {(side, name) for side, name in tellers if ("acl" if side == "pta" else "pta", name) not in there}
        if not tellers:
            return [list(run) for run in runs]

        def keep(index: ShardIndex) -> ShardIndex:
            records = (record for record in index.records if (record.side, record.data_id) not in tellers)
            return replace(index, records=tuple(records))

        return [[keep(index) for index in run] for run in runs]


NO_RULES = LayoutRules()

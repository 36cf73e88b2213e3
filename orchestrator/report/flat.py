"""The report as one flat table, one row per (label, rank): the columns that report.h5 and report.csv share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from math import nan
from operator import attrgetter
from typing import Any

from aclcmp.orchestrator.compare.metrics import Metrics
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.floors import FloorSource
from aclcmp.orchestrator.judge.verdicts import Judgement, LabelVerdict, Limits, RankVerdict
from aclcmp.orchestrator.plan.model import SideFacts
from aclcmp.orchestrator.plan.regions import LabelKey

Scalar = str | int | float | bool

STATS_SCALARS = tuple(f.name for f in fields(PairStats) if f.name != "rows")
"""The statistics of a pair without its sums by row."""
FLOOR_SCALARS = ("rel_l2", "worst_row")

_KINDS: dict[str, type[Scalar]] = {"str": str, "int": int, "float": float, "bool": bool, "Basis": str}
_ABSENT: dict[type[Scalar], Scalar] = {str: "", int: -1, float: nan, bool: False}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A value that does not exist is "" in text, -1 in an integer column and nan in a float one."""

    name: str
    kind: type[Scalar]
    value: Callable[[LabelVerdict, RankVerdict], Scalar]


def rows(judgement: Judgement) -> Iterator[tuple[LabelVerdict, RankVerdict]]:
    """Yield every (label, rank) in golden order, ranks ascending."""
    for label in judgement.labels:
        for verdict in sorted(label.ranks, key=attrgetter("rank")):
            yield label, verdict


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as Python writes it: "(4, 128)", "(5,)", "()"."""
    return str(tuple(shape))


def list_text(values: Sequence[str | int]) -> str:
    """Return a list as JSON; "" for an empty one."""
    return json.dumps(list(values)) if values else ""


def _part(part: str, prefix: str, owner: type[Any], names: tuple[str, ...]) -> list[Column]:
    """Columns for the fields `names` of the dataclass `owner` that a rank's verdict has as `part`, if it has it."""
    types = {f.name: str(f.type) for f in fields(owner)}

    def column(name: str) -> Column:
        kind = _KINDS[types[name]]
        of, field, absent = attrgetter(part), attrgetter(name), _ABSENT[kind]

        def value(_: LabelVerdict, verdict: RankVerdict) -> Scalar:
            found = of(verdict)
            if found is None:
                return absent
            cell = field(found)
            return kind(cell.value if isinstance(cell, Enum) else cell)

        return Column(prefix + name, kind, value)

    return [column(name) for name in names]


def _shape(side: str) -> Column:
    def value(_: LabelVerdict, verdict: RankVerdict) -> Scalar:
        facts: SideFacts | None = getattr(verdict, side)
        return "" if facts is None else shape_text(facts.shape)

    return Column(f"{side}_shape", str, value)


def _inputs(side: str) -> Column:
    def value(_: LabelVerdict, verdict: RankVerdict) -> Scalar:
        facts: SideFacts | None = getattr(verdict, side)
        return list_text(facts.inputs) if facts else ""

    return Column(f"{side}_inputs", str, value)


def _floors(source: FloorSource) -> list[Column]:
    def column(name: str) -> Column:
        def value(_: LabelVerdict, verdict: RankVerdict) -> Scalar:
            return next((float(getattr(f, name)) for f in verdict.floors if f.source is source), nan)

        return Column(f"floor_{source.value}_{name}", float, value)

    return [column(name) for name in FLOOR_SCALARS]


def _side(side: str) -> list[Column]:
    return [
        *_part(side, f"{side}_", SideFacts, ("path", "dtype")),
        _shape(side),
        *_part(side, f"{side}_", SideFacts, ("device", "call_site", "seq", "time", "capture")),
        _inputs(side),
    ]


def _other_label(name: str, other: Callable[[LabelVerdict], LabelKey | None]) -> list[Column]:
    """Columns for another label of the same task: its id, and its occurrence."""

    def label_of(label: LabelVerdict, _: RankVerdict) -> Scalar:
        found = other(label)
        return found.label if found else ""

    def occurrence_of(label: LabelVerdict, _: RankVerdict) -> Scalar:
        found = other(label)
        return found.occurrence if found else -1

    return [Column(name, str, label_of), Column(f"{name}_occurrence", int, occurrence_of)]


COLUMNS: tuple[Column, ...] = (
    Column("task", int, lambda label, _: label.key.task),
    Column("label", str, lambda label, _: label.key.label),
    Column("occurrence", int, lambda label, _: label.key.occurrence),
    Column("rank", int, lambda _, verdict: verdict.rank),
    Column("status", str, lambda _, verdict: verdict.status.value),
    Column("origin", str, lambda _, verdict: verdict.origin.value if verdict.origin else ""),
    Column("label_status", str, lambda label, _: label.status.value),
    Column("reason", str, lambda _, verdict: verdict.reason),
    Column("level", str, lambda label, _: label.level.words),
    Column("granularity", str, lambda label, _: label.level.granularity),
    Column("layer", str, lambda label, _: label.level.layer),
    *_other_label("parent", lambda label: label.level.parent),
    *_other_label("root", lambda label: label.root),
    Column("bitwise", bool, lambda _, verdict: verdict.bitwise),
    Column("layout", str, lambda _, verdict: verdict.layout),
    *_part("metrics", "", Metrics, tuple(f.name for f in fields(Metrics))),
    *_part("limits", "limit_", Limits, ("warn", "fail", "source", "rows")),
    Column("margin", float, lambda _, verdict: nan if verdict.margin is None else verdict.margin),
    Column("excused", str, lambda _, verdict: verdict.excused),
    Column("ignored", bool, lambda _, verdict: verdict.ignored),
    Column("golden_compared", str, lambda _, verdict: verdict.dtypes[0]),
    Column("actual_compared", str, lambda _, verdict: verdict.dtypes[1]),
    Column("gap", str, lambda _, verdict: verdict.gap.value if verdict.gap else ""),
    Column("gap_reason", str, lambda _, verdict: verdict.gap_reason),
    Column("uncovered", str, lambda _, verdict: verdict.uncovered),
    Column("ties", int, lambda _, verdict: verdict.ties),
    Column("summed", str, lambda _, verdict: list_text(verdict.summed)),
    *(column for source in FloorSource for column in _floors(source)),
    *_side("golden"),
    *_side("actual"),
    *_part("stats", "stats_", PairStats, STATS_SCALARS),
    Column("stats_rows_group", int, lambda _, verdict: verdict.stats.rows.group if verdict.stats else -1),
)

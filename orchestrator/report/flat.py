"""The report as one flat table, one row per (label, rank): the columns that report.h5 and report.csv share.

It is made block by block, for it may have a million rows, and column by column, for so it takes a tenth of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from math import nan
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.compact import table
from aclcmp.orchestrator.core.evidence import OwnError
from aclcmp.orchestrator.core.floors import FIGURES, Floor, FloorSource
from aclcmp.orchestrator.core.metrics import METRICS, Metrics
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import Judgement, LabelVerdict, Limits, RankVerdict

Scalar = str | int | float | bool
Values = list[Any] | npt.NDArray[Any]

STATS_SCALARS = tuple(f.name for f in fields(PairStats) if f.name not in ("rows", "choices"))
"""The statistics of a pair without its sums by row and the choices of rows."""
FLOOR_SCALARS = FIGURES
OWN_SCALARS = tuple(f.name for f in fields(OwnError))
BLOCK = 8192
"""Rows that are made at a time."""

KINDS: dict[str, type[Scalar]] = {"str": str, "int": int, "float": float, "bool": bool, "Basis": str}
_ABSENT: dict[type[Scalar], Scalar] = {str: "", int: -1, float: nan, bool: False}
_PACKED: dict[str, type[Any]] = {"metrics": Metrics, "stats": PairStats}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A value that does not exist is "" in text, -1 in an integer column and nan in a float one."""

    name: str
    kind: type[Scalar]
    value: Callable[[Any], Scalar]
    """Of the verdict, of the label, or of the verdict's part."""
    of_label: bool = False
    part: str = ""
    """The part of the verdict whose field it is; where the verdict has none, the value does not exist."""
    packed: str = ""
    """Where it is a number of a packed part: which."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows: the label and the verdict of each."""

    labels: list[LabelVerdict]
    verdicts: list[RankVerdict]

    def columns(self, wanted: Sequence[Column]) -> dict[str, Values]:
        """Return the values of columns by their names; arrays where they are numbers of a packed part."""
        parts = {part: list(map(attrgetter(part), self.verdicts)) for part in {each.part for each in wanted} - {""}}
        tables = {part: _Numbers(parts[part], _PACKED[part]) for part in {each.part for each in wanted if each.packed}}
        found: dict[str, Values] = {}
        for column in wanted:
            if column.packed:
                found[column.name] = tables[column.part].column(column)
            elif column.of_label:
                known = {id(label): column.value(label) for label in self.labels}
                found[column.name] = [known[id(label)] for label in self.labels]
            elif column.part:
                absent, value = _ABSENT[column.kind], column.value
                found[column.name] = [absent if part is None else value(part) for part in parts[column.part]]
            else:
                found[column.name] = list(map(column.value, self.verdicts))
        return found


class _Numbers:
    """The numbers of packed parts, some of which are absent."""

    def __init__(self, parts: Sequence[Any], kind: type[Any]) -> None:
        self._count = len(parts)
        self._there = np.array([part is not None for part in parts], bool)
        self._table = table((part for part in parts if part is not None), kind)

    def column(self, column: Column) -> npt.NDArray[Any]:
        values = self._table[column.packed]
        found = np.full(self._count, _ABSENT[column.kind], values.dtype)
        found[self._there] = values
        return found


def blocks(judgement: Judgement, most: int = BLOCK) -> Iterator[Block]:
    """Yield every (label, rank) in golden order, ranks ascending."""
    labels: list[LabelVerdict] = []
    verdicts: list[RankVerdict] = []
    for label in judgement.labels:
        ranks = sorted(label.ranks, key=attrgetter("rank"))
        labels += [label] * len(ranks)
        verdicts += ranks
        while len(labels) >= most:
            yield Block(labels[:most], verdicts[:most])
            labels, verdicts = labels[most:], verdicts[most:]
    if labels:
        yield Block(labels, verdicts)


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
        kind, field = KINDS[types[name]], attrgetter(name)

        def value(found: Any) -> Scalar:
            cell = field(found)
            return kind(cell.value if isinstance(cell, Enum) else cell)

        return Column(prefix + name, kind, value, part=part, packed=name if part in _PACKED and kind is not str else "")

    return [column(name) for name in names]


def _floors(source: FloorSource) -> list[Column]:
    def column(name: str) -> Column:
        def value(floors: tuple[Floor, ...]) -> Scalar:
            return next((float(getattr(f, name)) for f in floors if f.source is source), nan) if floors else nan

        return Column(f"floor_{source.value}_{name}", float, value, part="floors")

    return [column(name) for name in FLOOR_SCALARS]


def _side(side: str) -> list[Column]:
    return [
        *_part(side, f"{side}_", SideFacts, ("path", "dtype")),
        Column(f"{side}_shape", str, lambda facts: shape_text(facts.shape), part=side),
        *_part(side, f"{side}_", SideFacts, ("device", "call_site", "seq", "time", "capture")),
        Column(f"{side}_inputs", str, lambda facts: list_text(facts.inputs), part=side),
    ]


def _of_label(name: str, kind: type[Scalar], value: Callable[[LabelVerdict], Scalar]) -> Column:
    return Column(name, kind, value, of_label=True)


def _other_label(name: str, other: Callable[[LabelVerdict], LabelKey | None]) -> list[Column]:
    """Columns for another label of the same task: its id, and its occurrence."""

    def label_of(label: LabelVerdict) -> Scalar:
        found = other(label)
        return found.label if found else ""

    def occurrence_of(label: LabelVerdict) -> Scalar:
        found = other(label)
        return found.occurrence if found else -1

    return [_of_label(name, str, label_of), _of_label(f"{name}_occurrence", int, occurrence_of)]


COLUMNS: tuple[Column, ...] = (
    _of_label("task", int, lambda label: label.key.task),
    _of_label("label", str, lambda label: label.key.label),
    _of_label("occurrence", int, lambda label: label.key.occurrence),
    Column("rank", int, attrgetter("rank")),
    Column("status", str, attrgetter("status.value")),
    Column("origin", str, lambda verdict: verdict.origin.value if verdict.origin else ""),
    _of_label("label_status", str, lambda label: label.status.value),
    Column("reason", str, attrgetter("reason")),
    _of_label("level", str, lambda label: label.level.words),
    _of_label("granularity", str, lambda label: label.level.granularity),
    _of_label("layer", str, lambda label: label.level.layer),
    *_other_label("parent", lambda label: label.level.parent),
    *_other_label("root", lambda label: label.root),
    Column("bitwise", bool, attrgetter("bitwise")),
    Column("layout", str, attrgetter("layout")),
    *_part("metrics", "", Metrics, tuple(METRICS)),
    *_part("limits", "limit_", Limits, ("warn", "fail", "source", "rows")),
    Column("margin", float, lambda verdict: nan if verdict.margin is None else verdict.margin),
    Column("excused", str, attrgetter("excused")),
    Column("ignored", bool, attrgetter("ignored")),
    Column("golden_compared", str, lambda verdict: verdict.dtypes[0]),
    Column("actual_compared", str, lambda verdict: verdict.dtypes[1]),
    Column("gap", str, lambda gap: gap.value, part="gap"),
    Column("gap_reason", str, attrgetter("gap_reason")),
    Column("uncovered", str, attrgetter("uncovered")),
    Column("worst_row_name", str, attrgetter("worst_row_name")),
    Column("ties", int, attrgetter("ties")),
    Column("summed", str, lambda verdict: list_text(verdict.summed)),
    *(column for source in FloorSource for column in _floors(source)),
    *_part("own", "own_", OwnError, OWN_SCALARS),
    *_side("golden"),
    *_side("actual"),
    *_part("stats", "stats_", PairStats, STATS_SCALARS),
    Column("stats_rows_group", int, lambda stats: stats.rows.group, part="stats"),
    Column("stats_rows_count", int, lambda stats: stats.rows.count, part="stats"),
)

"""report.h5 read back: the report as it was written, to be shown, explained or judged again without the tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, cast

import h5py
import numpy as np

from aclcmp.orchestrator.compare.metrics import Metrics
from aclcmp.orchestrator.compare.stats import Basis, PairStats, RowSums
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.judge.floors import Floor, FloorSource
from aclcmp.orchestrator.judge.verdicts import (
    Coverage,
    FirstDivergence,
    Judgement,
    LabelVerdict,
    Limits,
    Origin,
    RankVerdict,
    ReplicaVerdict,
    Status,
)
from aclcmp.orchestrator.plan.levels import Level
from aclcmp.orchestrator.plan.model import GapKind, SideFacts
from aclcmp.orchestrator.plan.regions import LabelKey
from aclcmp.orchestrator.record import RunRecord
from aclcmp.orchestrator.report.flat import FLOOR_SCALARS
from aclcmp.orchestrator.report.h5_parts import own_dataset, own_group, read_table, text_of
from aclcmp.orchestrator.report.model import SCHEMA, Report

Row = dict[str, Any]
Kind = TypeVar("Kind", bound=Enum)
RowKey = tuple[int, str, int, int]
"""Task, label, occurrence and rank."""

_METRICS = tuple(field.name for field in fields(Metrics))
_STATS = tuple(field.name for field in fields(PairStats) if field.name not in ("rows", "basis"))
_SIDE = ("path", "dtype", "device", "call_site", "seq", "time", "capture")


def read_h5(path: Path, run: RunRecord | None) -> Report:
    """Read a report.h5; `run` is the record that lies beside it, None for a comparison of two runs.

    Sums by row come back for those labels of which they were kept. Raises UsageError, with the file, when it is absent,
    is no report, or is one of a newer schema.
    """
    try:
        with h5py.File(path, "r") as file:
            schema = int(file.attrs["schema"])
            if schema > SCHEMA:
                raise UsageError(
                    f"{path} has schema {schema}; this aclcmp reads up to {SCHEMA}: use the version that wrote it"
                )
            return _report(file, run)
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} has no {path.name}: nothing was compared there yet; `aclcmp compare` does"
        ) from None
    except (OSError, KeyError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read as a report: {words}; `aclcmp compare` writes it anew") from None


def _report(file: h5py.File, run: RunRecord | None) -> Report:
    rows_by_key = _kept_rows(file)
    verdicts: list[LabelVerdict] = []
    for _, group in groupby(read_table(file, "labels"), itemgetter("task", "label", "occurrence")):
        verdicts.append(_label(list(group), rows_by_key))
    by_rank = {int(row["rank"]): _key(row) for row in read_table(file, "first_by_rank")}
    judgement = Judgement(
        text_of(file.attrs["verdict"]),
        ExitCode(int(file.attrs["exit_code"])),
        _first(own_group(file, "first_divergence").attrs),
        by_rank,
        tuple(verdicts),
        _coverage(own_group(file, "coverage").attrs),
        tuple(_replicas(file)),
    )
    policy = {name: _scalar(value) for name, value in own_group(file, "policy").attrs.items()}
    notes = tuple(text_of(note) for note in own_dataset(file, "notes")[:])
    return Report(run, text_of(own_group(file, "run").attrs["run_id"]), judgement, policy, notes)


def _label(rows: Sequence[Row], kept: Mapping[RowKey, RowSums]) -> LabelVerdict:
    first = rows[0]
    key = _key(first)
    level = Level(first["granularity"], first["level"] == "low", first["layer"], _other(first, "parent"))
    ranks = tuple(_rank(row, kept.get((*key, int(row["rank"])), RowSums.empty())) for row in rows)
    return LabelVerdict(key, Status(first["label_status"]), ranks, level, _other(first, "root"))


def _rank(row: Row, kept: RowSums) -> RankVerdict:
    compared = bool(row["stats_basis"])
    return RankVerdict(
        rank=row["rank"],
        golden=_side(row, "golden"),
        actual=_side(row, "actual"),
        layout=row["layout"],
        stats=_stats(row, kept) if compared else None,
        metrics=Metrics(**{name: row[name] for name in _METRICS}) if compared else None,
        dtypes=(row["golden_compared"], row["actual_compared"]),
        gap=_enum(GapKind, row["gap"]),
        gap_reason=row["gap_reason"],
        uncovered=row["uncovered"],
        summed=tuple(_list(row["summed"])),
        floors=tuple(_floors(row)),
        status=Status(row["status"]),
        origin=_enum(Origin, row["origin"]),
        reason=row["reason"],
        bitwise=row["bitwise"],
        limits=Limits(row["limit_warn"], row["limit_fail"], row["limit_source"], row["limit_rows"])
        if compared
        else None,
        margin=None if np.isnan(row["margin"]) else row["margin"],
        excused=row["excused"],
        ignored=row["ignored"],
    )


def _stats(row: Row, kept: RowSums) -> PairStats:
    values = {name: row[f"stats_{name}"] for name in _STATS}
    return PairStats(**values, rows=kept, basis=Basis(row["stats_basis"]))


def _side(row: Row, side: str) -> SideFacts | None:
    facts = {name: row[f"{side}_{name}"] for name in _SIDE}
    if facts["seq"] < 0:
        return None
    shape = tuple(int(size) for size in row[f"{side}_shape"].strip("()").split(",") if size.strip())
    return SideFacts(**facts, shape=shape, inputs=tuple(_list(row[f"{side}_inputs"])))


def _floors(row: Row) -> Iterator[Floor]:
    for source in FloorSource:
        rel_l2, worst_row = (row[f"floor_{source.value}_{name}"] for name in FLOOR_SCALARS)
        if not np.isnan(rel_l2):
            yield Floor(source, rel_l2, worst_row)


def _kept_rows(file: h5py.File) -> dict[RowKey, RowSums]:
    """Sums by row of the labels of which report.h5 has them."""
    found: dict[RowKey, RowSums] = {}
    group = own_group(file, "rows")
    for name in group:
        data = own_group(group, name)
        error, golden = own_dataset(data, "error_norm")[:], own_dataset(data, "golden_norm")[:]
        index, per_group = own_dataset(data, "row_group")[:], int(data.attrs["rows_per_group"])
        key = int(data.attrs["task"]), text_of(data.attrs["label"]), int(data.attrs["occurrence"])
        for i, rank in enumerate(own_dataset(data, "rank")[:].tolist()):
            held = ~np.isnan(error[i])
            found[(*key, rank)] = RowSums(per_group, index[held], golden[i][held] ** 2, error[i][held] ** 2)
    return found


def _replicas(file: h5py.File) -> Iterator[ReplicaVerdict]:
    for _, group in groupby(read_table(file, "replicas"), itemgetter("number")):
        rows = list(group)
        first = rows[0]
        odd = tuple(row["rank"] for row in rows if row["rank"] >= 0)
        agreeing, unread = (tuple(_list(first[name])) for name in ("agreeing", "unread"))
        what = first["side"], first["told"], odd, agreeing, first["rel_l2"], first["reason"], unread, first["own_ranks"]
        yield ReplicaVerdict(_key(first), *what)


def _first(attributes: Mapping[str, Any]) -> FirstDivergence | None:
    if not attributes["found"]:
        return None
    key = LabelKey(int(attributes["task"]), text_of(attributes["label"]), int(attributes["occurrence"]))
    ranks = tuple(int(rank) for rank in attributes["ranks"])
    origin, why, site = (text_of(attributes[name]) for name in ("origin", "why", "call_site"))
    return FirstDivergence(key, ranks, Origin(origin), why, site)


def _coverage(attributes: Mapping[str, Any]) -> Coverage:
    counts = {f.name: int(attributes[f.name]) for f in fields(Coverage) if f.name != "silent_ranks"}
    return Coverage(**counts, silent_ranks=tuple(int(rank) for rank in attributes["silent_ranks"]))


def _key(row: Row) -> LabelKey:
    return LabelKey(row["task"], row["label"], row["occurrence"])


def _other(row: Row, name: str) -> LabelKey | None:
    occurrence = row[f"{name}_occurrence"]
    return LabelKey(row["task"], row[name], occurrence) if occurrence >= 0 else None


def _enum(kind: type[Kind], text: str) -> Kind | None:
    return kind(text) if text else None


def _list(text: str) -> list[Any]:
    return cast(list[Any], json.loads(text)) if text else []


def _scalar(value: Any) -> str | float:
    return text_of(value) if isinstance(value, (str, bytes)) else float(value)

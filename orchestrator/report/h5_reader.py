"""report.h5 read back: the report as it was written, to be shown, explained or judged again without the tensors."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

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
from aclcmp.orchestrator.report.files import words_of
from aclcmp.orchestrator.report.flat import FLOOR_SCALARS
from aclcmp.orchestrator.report.h5_looks import read_looks
from aclcmp.orchestrator.report.h5_parts import own_dataset, own_group, read_columns, read_table, text_of
from aclcmp.orchestrator.report.model import SCHEMA, Report

Row = dict[str, Any]
Columns = Mapping[str, list[Any]]
Kind = TypeVar("Kind", bound=Enum)
Kept = TypeVar("Kept")
RowKey = tuple[int, str, int, int]
"""Task, label, occurrence and rank."""

_METRICS = tuple(field.name for field in fields(Metrics))
_STATS = tuple(field.name for field in fields(PairStats) if field.name not in ("rows", "basis"))
_SIDE = ("path", "dtype", "device", "call_site", "seq", "time", "capture")
_PLAIN = ("rank", "ties", "layout", "gap_reason", "uncovered", "reason", "bitwise", "excused", "ignored")


def read_h5(path: Path, run: RunRecord | None, *, with_rows: bool = True) -> Report:
    """Read a report.h5; `run` is the record that lies beside it, None for a comparison of two runs.

    Sums by row come back for those labels of which they were kept, unless they are not wanted. Raises UsageError, with
    the file, when it is absent, is no report, or is one of a newer schema.
    """
    try:
        with h5py.File(path, "r") as file:
            if not {"schema", "verdict"} <= set(file.attrs):
                raise UsageError(f"{path} is no report of aclcmp; `aclcmp compare` writes one")
            schema = int(file.attrs["schema"])
            if schema > SCHEMA:
                raise UsageError(
                    f"{path} has schema {schema}; this aclcmp reads up to {SCHEMA}: use the version that wrote it"
                )
            return _report(file, run, with_rows)
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} has no {path.name}: nothing was compared there yet; `aclcmp compare` does"
        ) from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # RuntimeError: h5py, of damaged bytes
        raise UsageError(
            f"{path} cannot be read as a report: {words_of(error)}; `aclcmp compare` writes it anew"
        ) from None


def _report(file: h5py.File, run: RunRecord | None, with_rows: bool) -> Report:
    by_rank = {int(row["rank"]): _key(row) for row in read_table(file, "first_by_rank")}
    judgement = Judgement(
        text_of(file.attrs["verdict"]),
        ExitCode(int(file.attrs["exit_code"])),
        _first(own_group(file, "first_divergence").attrs),
        by_rank,
        tuple(_labels(file, with_rows)),
        _coverage(own_group(file, "coverage").attrs),
        tuple(_replicas(file)),
    )
    policy = {name: _scalar(value) for name, value in own_group(file, "policy").attrs.items()}
    notes = tuple(text_of(note) for note in own_dataset(file, "notes")[:])
    looks, patterns, hints = read_looks(file)
    run_id = text_of(own_group(file, "run").attrs["run_id"])
    return Report(run, run_id, judgement, policy, notes, patterns, hints, looks)


def _labels(file: h5py.File, with_rows: bool) -> Iterator[LabelVerdict]:
    """The labels in their order. All is made column by column: a table may have a million rows."""
    columns = read_columns(file, "labels")
    keys = list(map(LabelKey, columns["task"], columns["label"], columns["occurrence"]))
    verdicts = _verdicts(columns, keys, _kept_rows(file) if with_rows else {})
    start = 0
    for key, group in groupby(keys):
        stop = start + sum(1 for _ in group)
        granularity, words, layer, status = (
            columns[n][start] for n in ("granularity", "level", "layer", "label_status")
        )
        level = Level(granularity, words == "low", layer, _other(columns, start, "parent"))
        yield LabelVerdict(key, Status(status), tuple(verdicts[start:stop]), level, _other(columns, start, "root"))
        start = stop


def _verdicts(columns: Columns, keys: Sequence[LabelKey], kept: Mapping[RowKey, RowSums]) -> list[RankVerdict]:
    compared = list(map(bool, columns["stats_basis"]))
    nothing = functools.cache(RowSums.empty)
    groups = columns.get("stats_rows_group", [0] * len(keys))
    names = zip(keys, columns["rank"], groups, strict=True)
    rows = [kept.get((*key, rank)) or nothing(group) for key, rank, group in names]
    bases = [Basis(basis) if basis else Basis.VALUES for basis in columns["stats_basis"]]
    stats = map(PairStats, *(columns[f"stats_{name}"] for name in _STATS), rows, bases)
    metrics = map(Metrics, *(columns[name] for name in _METRICS))
    limits = map(Limits, *(columns[f"limit_{name}"] for name in ("warn", "fail", "source", "rows")))
    each: dict[str, Iterable[Any]] = {
        **{name: columns[name] for name in _PLAIN},
        "golden": _sides(columns, "golden"),
        "actual": _sides(columns, "actual"),
        "stats": _where(compared, stats),
        "metrics": _where(compared, metrics),
        "limits": _where(compared, limits),
        "dtypes": zip(columns["golden_compared"], columns["actual_compared"], strict=True),
        "gap": [_enum(GapKind, text) for text in columns["gap"]],
        "summed": [_tuple(text) for text in columns["summed"]],
        "floors": _floors(columns),
        "status": map(Status, columns["status"]),
        "origin": [_enum(Origin, text) for text in columns["origin"]],
        "margin": [None if margin != margin else margin for margin in columns["margin"]],
    }
    return [RankVerdict(**dict(zip(each, row, strict=True))) for row in zip(*each.values(), strict=True)]


def _where(compared: Sequence[bool], values: Iterable[Kept]) -> list[Kept | None]:
    return [value if there else None for there, value in zip(compared, values, strict=True)]


def _sides(columns: Columns, side: str) -> list[SideFacts | None]:
    there = [seq >= 0 for seq in columns[f"{side}_seq"]]
    texts = columns[f"{side}_shape"]
    shapes = {text: tuple(int(size) for size in text.strip("()").split(",") if size.strip()) for text in set(texts)}
    fields_of = {name: columns[f"{side}_{name}"] for name in _SIDE}
    fields_of["shape"] = [shapes[text] for text in texts]
    fields_of["inputs"] = [_tuple(text) for text in columns[f"{side}_inputs"]]
    return _where(there, map(SideFacts, *(fields_of[field.name] for field in fields(SideFacts))))


def _floors(columns: Columns) -> list[tuple[Floor, ...]]:
    found: list[tuple[Floor, ...]] = [()] * len(columns["rank"])
    for source in FloorSource:
        rel_l2, worst_row = (columns[f"floor_{source.value}_{name}"] for name in FLOOR_SCALARS)
        for i, error in enumerate(rel_l2):
            if error == error:
                found[i] = (*found[i], Floor(source, error, worst_row[i]))
    return found


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
        agreeing, unread = (_tuple(first[name]) for name in ("agreeing", "unread"))
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


def _other(columns: Columns, at: int, name: str) -> LabelKey | None:
    occurrence = columns[f"{name}_occurrence"][at]
    return LabelKey(columns["task"][at], columns[name][at], occurrence) if occurrence >= 0 else None


def _enum(kind: type[Kind], text: str) -> Kind | None:
    return kind(text) if text else None


@functools.cache
def _tuple(text: str) -> tuple[Any, ...]:
    return tuple(json.loads(text)) if text else ()


def _scalar(value: Any) -> str | float:
    return text_of(value) if isinstance(value, (str, bytes)) else float(value)

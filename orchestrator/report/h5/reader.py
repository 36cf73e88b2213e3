"""report.h5 read back: the report as it was written, to be shown, explained or judged again without the tensors."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from enum import Enum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.orchestrator.core.compact import from_columns, table, without_collection
from aclcmp.orchestrator.core.evidence import OwnError, ReplicaVerdict
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.metrics import METRICS, Metrics, figures_of
from aclcmp.orchestrator.core.plan import GapKind, SideFacts
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import SCHEMA, Report
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.core.stats import Basis, PairStats, RowsLeftOut, RowSums
from aclcmp.orchestrator.core.verdicts import (
    Coverage,
    FirstDivergence,
    Judgement,
    LabelVerdict,
    Limits,
    Origin,
    RankVerdict,
    Status,
    verdicts_from,
)
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.report.files import words_of
from aclcmp.orchestrator.report.flat import BLOCK, FLOOR_SCALARS, OWN_SCALARS
from aclcmp.orchestrator.report.h5.brief import brief_labels, worth_telling
from aclcmp.orchestrator.report.h5.diagnosis_tables import read_looks
from aclcmp.orchestrator.report.h5.labels import Grid, read_grid, slices
from aclcmp.orchestrator.report.h5.price import read_price
from aclcmp.orchestrator.report.h5.primitives import DESCRIPTION, columns_of, own_dataset, own_group, read_table
from aclcmp.orchestrator.report.h5.sealed_file import open_sealed_file
from aclcmp.orchestrator.report.h5.tokens import read_tokens
from aclcmp.orchestrator.report.h5.weight_tables import read_weights

Row = dict[str, Any]
Columns = Mapping[str, list[Any]]
Only = Callable[[Grid], list[int]]
Kind = TypeVar("Kind", bound=Enum)
Kept = TypeVar("Kept")
RowKey = tuple[int, str, int, int]
"""Task, label, occurrence and rank."""

_VERDICTS = ("match", "diverged", "failed", "incomplete")
_WRONG = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, MemoryError)
"""What reading a file raises that is not as it was written; RuntimeError is h5py's of damaged bytes."""
_STATS = tuple(field.name for field in fields(PairStats) if field.name not in ("rows", "basis", "choices"))
_SIDE = ("path", "dtype", "device", "call_site", "seq", "time", "capture")
_BASES = {basis.value: basis for basis in Basis}
_STATUSES = {status.value: status for status in Status}
_PLAIN = ("rank", "ties", "layout", "gap_reason", "uncovered", "reason", "bitwise", "excused", "ignored")


def read_h5(path: Path, run: RunRecord | None, *, with_rows: bool = True, only: Only | None = None) -> Report:
    """Read a report.h5; `run` is the record that lies beside it, None for a comparison of two runs.

    Sums by row come back for those labels of which they were kept, unless they are not wanted. `only` says by the
    report's index which labels are wanted, by their numbers; where there is no index all are read. Raises UsageError,
    with the file, when it is absent, is no report, or is one of a newer schema.
    """
    with _open_report(path) as file:
        return _report(file, run, _labels(file, with_rows, only))


def read_two(first: tuple[Path, RunRecord | None], second: tuple[Path, RunRecord | None]) -> tuple[Report, Report]:
    """Read two reports for what differs between them: of labels that are not in order in both what the index holds.

    Reports without an index are read whole. Raises what `read_h5` does.
    """
    grids = []
    for path, _ in (first, second):
        with _open_report(path) as file:
            grids.append(read_grid(file))
    found = []
    for (path, run), grid, other in zip((first, second), grids, reversed(grids), strict=True):
        with _open_report(path) as file:
            if grid is None or other is None:
                found.append(_report(file, run, _labels(file, False)))
            else:
                found.append(_report(file, run, brief_labels(file, grid, worth_telling(grid, other))))
    return found[0], found[1]


@contextmanager
def _open_report(path: Path) -> Iterator[h5py.File]:
    try:
        with open_sealed_file(path) as file, without_collection():
            if not {"schema", "verdict"} <= set(file.attrs):
                raise UsageError(f"{path} is no report of aclcmp; `aclcmp compare` writes one")
            schema = int(file.attrs["schema"])
            if schema > SCHEMA:
                raise UsageError(
                    f"{path} has schema {schema}; this aclcmp reads up to {SCHEMA}: use the version that wrote it"
                )
            yield file
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} has no {path.name}: nothing was compared there yet; `aclcmp compare` does"
        ) from None
    except ShardFormatError as error:
        raise UsageError(f"{error}; `aclcmp compare` writes it anew") from None
    except _WRONG as error:
        raise UsageError(
            f"{path} cannot be read as a report: {words_of(error)}; `aclcmp compare` writes it anew"
        ) from None


def _report(file: h5py.File, run: RunRecord | None, labels: Iterable[LabelVerdict]) -> Report:
    by_rank = {int(row["rank"]): _key(row) for row in read_table(file, "first_by_rank")}
    verdict = decode_text(file.attrs["verdict"])
    if verdict not in _VERDICTS:
        raise ValueError(f"its verdict is {verdict[:80]!r}")
    tokens, texts = read_tokens(file)
    judgement = Judgement(
        verdict,
        ExitCode(int(file.attrs["exit_code"])),
        _first(own_group(file, "first_divergence").attrs),
        by_rank,
        tuple(labels),
        _coverage(own_group(file, "coverage").attrs),
        tuple(_replicas(file)),
        read_weights(file),
        tokens,
    )
    policy = {name: _scalar(value) for name, value in _facts(own_group(file, "policy"))}
    notes = tuple(decode_text(note) for note in own_dataset(file, "notes")[:])
    looks, patterns, hints = read_looks(file)
    run_id = decode_text(own_group(file, "run").attrs["run_id"])
    order = decode_text(file.attrs["order"]) if "order" in file.attrs else "calls"
    paths = {name: decode_text(text) for name, text in _facts(own_group(file, "paths"))} if "paths" in file else {}
    return Report(run, run_id, judgement, policy, notes, patterns, hints, looks, order, texts, read_price(file), paths)


def _labels(file: h5py.File, with_rows: bool, only: Only | None = None) -> Iterator[LabelVerdict]:
    """The labels in their order. All is made column by column, block by block: a table may have a million rows."""
    wanted = None
    if only is not None and (grid := read_grid(file)) is not None:
        wanted = [grid.rows[number] for number in only(grid)]
    kept = _kept_rows(file) if with_rows else {}
    made = _VerdictMaker()
    begun: LabelVerdict | None = None
    ranks: list[RankVerdict] = []
    for rows in slices(file, wanted, BLOCK):
        columns = columns_of(rows, made.texts)
        keys = list(map(made.key, columns["task"], columns["label"], columns["occurrence"]))
        verdicts = made.verdicts(columns, keys, kept)
        start = 0
        for key, group in groupby(keys):
            stop = start + sum(1 for _ in group)
            if begun is not None and begun.key != key:
                yield replace(begun, ranks=tuple(ranks))
                begun, ranks = None, []
            begun = begun or _label(columns, start, key)
            ranks += verdicts[start:stop]
            start = stop
    if begun is not None:
        yield replace(begun, ranks=tuple(ranks))


def _label(columns: Columns, at: int, key: LabelKey) -> LabelVerdict:
    """A label without its ranks, from its first row."""
    granularity, words, layer, status = (columns[n][at] for n in ("granularity", "level", "layer", "label_status"))
    level = Level(granularity, words == "low", layer, _other(columns, at, "parent"))
    return LabelVerdict(key, _STATUSES[status], (), level, _other(columns, at, "root"))


class _VerdictMaker:
    """Makes verdicts of rows; what is equal in many of them is there once."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[Any, str]] = {}
        self.key = functools.cache(LabelKey)
        self._limits = functools.cache(Limits)
        self._dtypes = functools.cache(lambda golden, actual: (golden, actual))
        self._left_out = functools.cache(RowsLeftOut)

    def verdicts(self, columns: Columns, keys: Sequence[LabelKey], kept: Mapping[RowKey, RowSums]) -> list[RankVerdict]:
        compared = list(map(bool, columns["stats_basis"]))
        groups = columns.get("stats_rows_group", [0] * len(keys))
        # reports of earlier versions do not tell how many rows there were: at least up to the worst one
        counts = columns.get("stats_rows_count") or [worst + 1 for worst in columns["worst_row_index"]]
        names = zip(keys, columns["rank"], groups, counts, strict=True)
        rows = [kept.get((*key, rank)) or self._left_out(group, rows) for key, rank, group, rows in names]
        bases = [_BASES[basis] if basis else Basis.VALUES for basis in columns["stats_basis"]]
        unknown = [-1] * len(keys)  # statistics that reports of earlier versions do not have
        known = {name: columns.get(f"stats_{name}", unknown) for name in _STATS}
        stats = from_columns(PairStats, known, rows, bases, [None] * len(keys))
        later = figures_of(table(stats, PairStats), METRICS.keys() - columns.keys())  # than the report's version
        metrics = from_columns(Metrics, {**later, **columns})
        limits = map(self._limits, *(columns[f"limit_{name}"] for name in ("warn", "fail", "source", "rows")))
        return verdicts_from(
            len(keys),
            {
                **{name: columns[name] for name in _PLAIN},
                "worst_row_name": columns.get("worst_row_name", [""] * len(keys)),
                "golden": _sides(columns, "golden"),
                "actual": _sides(columns, "actual"),
                "stats": _where(compared, stats),
                "metrics": _where(compared, metrics),
                "limits": _where(compared, limits),
                "dtypes": map(self._dtypes, columns["golden_compared"], columns["actual_compared"]),
                "gap": [_enum(GapKind, text) for text in columns["gap"]],
                "summed": [_tuple(text) for text in columns["summed"]],
                "floors": _floors(columns),
                "own": _own_errors(columns),
                "status": map(_STATUSES.__getitem__, columns["status"]),
                "origin": [_enum(Origin, text) for text in columns["origin"]],
                "margin": [None if margin != margin else margin for margin in columns["margin"]],
            },
        )


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
        names = [name for name in FLOOR_SCALARS if f"floor_{source.value}_{name}" in columns]
        for i, errors in enumerate(zip(*(columns[f"floor_{source.value}_{name}"] for name in names), strict=True)):
            if errors[0] == errors[0]:
                found[i] = (*found[i], Floor(source, **dict(zip(names, errors, strict=True))))
    return found


def _facts(group: h5py.Group) -> list[tuple[str, Any]]:
    """Return the attributes of a group but the one that says what it is for."""
    return [(name, value) for name, value in group.attrs.items() if name != DESCRIPTION]


def _own_errors(columns: Columns) -> list[OwnError | None]:
    """Own errors, where they were measured; nan is not known of any other, so rows tell whether there is one."""
    if "own_rows" not in columns:  # reports of earlier versions have none
        return [None] * len(columns["rank"])
    found = zip(*(columns[f"own_{name}"] for name in OWN_SCALARS), strict=True)
    return [OwnError(*each) if each[-1] >= 0 else None for each in found]


def _kept_rows(file: h5py.File) -> dict[RowKey, RowSums]:
    """Sums by row of the labels of which report.h5 has them."""
    found: dict[RowKey, RowSums] = {}
    group = own_group(file, "rows")
    for name in group:
        data = own_group(group, name)
        error, golden = own_dataset(data, "error_norm")[:], own_dataset(data, "golden_norm")[:]
        index, per_group = own_dataset(data, "row_group")[:], int(data.attrs["rows_per_group"])
        key = int(data.attrs["task"]), decode_text(data.attrs["label"]), int(data.attrs["occurrence"])
        for i, rank in enumerate(own_dataset(data, "rank")[:].tolist()):
            kept = ~np.isnan(error[i])
            found[(*key, rank)] = RowSums(per_group, index[kept], golden[i][kept] ** 2, error[i][kept] ** 2)
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
    key = LabelKey(int(attributes["task"]), decode_text(attributes["label"]), int(attributes["occurrence"]))
    ranks = tuple(int(rank) for rank in attributes["ranks"])
    origin, why, site = (decode_text(attributes[name]) for name in ("origin", "why", "call_site"))
    return FirstDivergence(key, ranks, Origin(origin), why, site, bool(attributes.get("of_weight", False)))


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
    return decode_text(value) if isinstance(value, (str, bytes)) else float(value)

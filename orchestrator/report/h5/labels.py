"""The large table of report.h5, /labels, and its index, /grid: written in blocks, read in part or whole.

/labels               table, one row per (label, rank), the columns of `flat.COLUMNS`; an attribute for each says what
                      it means, one more (NAME_units) its unit
/grid/labels          table, one row per label: task, label, occurrence, layer, first_row and rows (in /labels)
/grid/rank            the ranks, ascending
/grid/status          label x rank, an enum: 0 (absent) where the rank has no such label, else `Status.number`
/grid/origin          label x rank, an enum: 0 none, 1 own, 2 inherited
/grid/excused         label x rank: whether a policy lets it pass
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.hdf5_types import encode_text
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.report.column_help import column_help, column_units
from aclcmp.orchestrator.report.flat import COLUMNS, Values, blocks
from aclcmp.orchestrator.report.h5.primitives import (
    PACKED,
    column_type,
    own_dataset,
    own_group,
    read_columns,
    write_attributes,
    write_table,
)

_NUMPY = {int: "i8", float: "f8", bool: "?"}
_TEXTS = [column for column in COLUMNS if column.kind is str]
_ORIGIN = {None: 0, Origin.OWN: 1, Origin.INHERITED: 2}
_STATUS_TYPE = h5py.enum_dtype({"absent": 0, **{status.value: status.number for status in Status}}, basetype="u1")
_ORIGIN_TYPE = h5py.enum_dtype({each.value if each else "none": code for each, code in _ORIGIN.items()}, basetype="u1")
_KNOWN = ((0, *(status.number for status in Status)), tuple(_ORIGIN.values()), (False, True))
"""The codes that /grid/status, /grid/origin and /grid/excused may hold."""

Codes = npt.NDArray[np.uint8]


def write_labels(file: h5py.File, judgement: Judgement) -> None:
    """Write /labels: once through all rows for the widths of its texts, once for the rows."""
    count = sum(len(label.ranks) for label in judgement.labels)
    kept: list[dict[str, Values]] = []
    widths = dict.fromkeys([column.name for column in _TEXTS], 1)
    for block in blocks(judgement):
        columns = block.columns(_TEXTS)
        for name, texts in columns.items():
            widths[name] = max(widths[name], max(len(encode_text(text)) for text in set(texts)))
        kept = [columns] if len(block.labels) == count else []  # of one block they are not made again
    kinds = [
        (c.name, column_type(widths[c.name], count) if c.kind is str else np.dtype(_NUMPY[c.kind])) for c in COLUMNS
    ]
    table = file.create_dataset("labels", (count,), np.dtype(kinds), **(PACKED if count else {}))
    write_attributes(table, column_help() | {f"{name}_units": unit for name, unit in column_units().items()})
    numbers = [column for column in COLUMNS if column.kind is not str]
    start = 0
    for block in blocks(judgement):
        columns = block.columns(numbers) | kept[0] if kept else block.columns(COLUMNS)
        rows = np.empty(len(block.labels), table.dtype)
        for name, values in columns.items():
            rows[name] = _bytes_of(values) if name in widths else values
        table[start : start + len(rows)] = rows
        start += len(rows)


def _bytes_of(texts: Values) -> list[bytes]:
    known = {text: encode_text(text) for text in set(texts)}
    return [known[text] for text in texts]


def write_grid(file: h5py.File, judgement: Judgement) -> None:
    """Write /grid."""
    labels = judgement.labels
    ranks = sorted({verdict.rank for label in labels for verdict in label.ranks})
    column = {rank: place for place, rank in enumerate(ranks)}
    status, origin, excused = (np.zeros((len(labels), len(ranks)), np.uint8) for _ in range(3))
    for number, label in enumerate(labels):
        at = [column[verdict.rank] for verdict in label.ranks]
        status[number, at] = [verdict.status.number for verdict in label.ranks]
        origin[number, at] = [_ORIGIN[verdict.origin] for verdict in label.ranks]
        excused[number, at] = [bool(verdict.excused) for verdict in label.ranks]
    rows = np.array([len(label.ranks) for label in labels], int)
    group = file.create_group("grid")
    kinds = {"status": _STATUS_TYPE, "origin": _ORIGIN_TYPE, "excused": np.dtype("u1")}
    for name, codes in (("status", status), ("origin", origin), ("excused", excused)):
        group.create_dataset(name, data=codes, dtype=kinds[name], **(PACKED if codes.size else {}))
    group.create_dataset("rank", data=np.array(ranks, "i8"))
    write_table(
        group,
        "labels",
        {
            "task": (int, [label.key.task for label in labels]),
            "label": (str, [label.key.label for label in labels]),
            "occurrence": (int, [label.key.occurrence for label in labels]),
            "layer": (str, [label.level.layer for label in labels]),
            "first_row": (int, (np.cumsum(rows) - rows).tolist()),
            "rows": (int, rows.tolist()),
        },
    )


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The index of a report: status and origin of each (label, rank), and where the rest of it is."""

    keys: list[LabelKey]
    layers: list[str]
    rows: list[tuple[int, int]]
    """First row of each label in /labels, and the one behind its last."""
    ranks: list[int]
    status: Codes
    origin: Codes
    excused: Codes


def read_grid(file: h5py.File) -> Grid | None:
    """Read /grid; None from a report.h5 without it. Raises KeyError, TypeError or ValueError for what is not right."""
    if "grid" not in file:
        return None
    group = own_group(file, "grid")
    columns = read_columns(group, "labels")
    keys = list(map(LabelKey, columns["task"], columns["label"], columns["occurrence"]))
    rows = [(first, first + count) for first, count in zip(columns["first_row"], columns["rows"], strict=True)]
    codes = [own_dataset(group, name)[:] for name in ("status", "origin", "excused")]
    ranks = own_dataset(group, "rank")[:].tolist()
    if any(each.shape != (len(keys), len(ranks)) for each in codes):
        raise ValueError("/grid has not one place for each label and rank")
    if not all(np.isin(each, known).all() for each, known in zip(codes, _KNOWN, strict=True)):
        raise ValueError("/grid has codes that mean nothing")
    if any(not 0 <= first <= last <= len(own_dataset(file, "labels")) for first, last in rows):
        raise ValueError("/grid tells of rows that are not there")
    return Grid(keys, columns["layer"], rows, ranks, *codes)


def slices(file: h5py.File, wanted: list[tuple[int, int]] | None, most: int) -> Iterator[npt.NDArray[np.void]]:
    """Yield rows of /labels, at most so many at a time: all, or those of the ranges that are wanted."""
    table = own_dataset(file, "labels")
    for first, last in [(0, len(table))] if wanted is None else wanted:
        for start in range(first, last, most):
            yield table[start : min(start + most, last)]

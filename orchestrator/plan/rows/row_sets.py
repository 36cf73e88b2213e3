"""Sets of rows: the rows that a label holds on one rank, over all forwards in which it was set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.plan.rank_labels import RankLabel

_Int32 = npt.NDArray[np.int32]
_Name = TypeVar("_Name")


@dataclass(frozen=True, slots=True, eq=False)
class RowSet:
    """Rows of a label on one rank, in the order in which they were computed. All arrays have one length."""

    request: _Int32
    """Numbers of requests of this side."""
    position: _Int32
    token: _Int32
    """Token ids; -1 where none was told."""
    piece: _Int32
    """Which of the rank's labels holds the row."""
    row: _Int32
    """Number of the row in that label."""
    block: _Int32
    """The block of an engine's cache that held the row; -1 where it comes from none."""

    @property
    def names(self) -> npt.NDArray[np.int64]:
        """A number for each row that names its request and position."""
        return self.request.astype(np.int64) << 32 | self.position


Features = tuple[tuple[int, ...], bool]
"""The shape of one row of a label, and whether its rows lie by tokens first ([T, B, ...])."""


@dataclass(frozen=True, slots=True, eq=False)
class Forwards:
    """Forwards of one rank, in order, as labels of some shape have them: all that were recorded in them share this."""

    tables: tuple[RowTable, ...]
    rows: npt.NDArray[np.int64]
    """Number of rows of each, with those of padding."""
    features: Sequence[Features | None]
    """Of each label, as of `features_of`."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordedRows:
    """The records with rows of one label on one rank and side: one for each forward."""

    labels: Sequence[RankLabel]
    stored: Sequence[DumpedTensor | LabelRecord]
    """What tells the type, the shape and the place of each."""
    forwards: Forwards


def share_forwards(series: Mapping[_Name, Sequence[RankLabel]]) -> dict[_Name, RecordedRows]:
    """Return the records of labels with rows, each series in order, with the forwards that they share."""
    known: dict[object, Forwards] = {}
    found = {}
    for name, labels in series.items():
        stored = [label.record if label.dump is None else label.stored for label in labels]
        tables = tuple([label.rows for label in labels if label.rows is not None])
        shapes = tuple([each.shape for each in stored])
        forwards = known.get((tables, shapes))
        if forwards is None:
            rows = np.array([table.numbers.size // 3 for table in tables], np.int64)
            forwards = known[tables, shapes] = Forwards(tables, rows, list(map(features_of, labels)))
        found[name] = RecordedRows(labels, stored, forwards)
    return found


def features_of(label: RankLabel) -> Features | None:
    """Return the features of a label with rows; None where no leading dimensions have as many elements as rows."""
    assert label.rows is not None
    return _features_of(label.shape, label.rows.numbers.shape[:-1])


@lru_cache(maxsize=4096)  # a run has a million records of few shapes
def _features_of(shape: tuple[int, ...], grid: tuple[int, ...]) -> Features | None:
    rows = math.prod(grid)
    for count in range(len(shape) + 1):
        if math.prod(shape[:count]) != rows:
            continue
        features = shape[count:]
        while features and features[0] == 1 and rows == math.prod(shape[: count + 1]):  # [1, 1, H] for one row
            count, features = count + 1, features[1:]
        return features, len(grid) == 2 and grid[0] != grid[1] and shape[:2] == grid[::-1]
    return None


class RowSets:
    """Row sets of one side. What several labels share is made once: planning grows with rows, not with labels.

    Tables are known by their identity: the labels that are planned keep them alive.
    """

    def __init__(self, number_of: Callable[[int, RowTable, int], int]) -> None:
        """`number_of` a request of a rank's table is its number on this side."""
        self._number_of = number_of
        self._columns: dict[tuple[int, int, bool], npt.NDArray[np.int32]] = {}
        self._sets: dict[object, RowSet] = {}
        self._distinct: dict[object, RowSet] = {}

    def of(self, rank: int, records: RecordedRows) -> RowSet:
        """Return the rows of a label on one rank. Equal rows are one object, also those of several ranks."""
        key = rank, records.forwards
        found = self._sets.get(key)
        if found is None:
            columns = [
                self._rows_of(rank, table, features is not None and features[1])
                for table, features in zip(records.forwards.tables, records.forwards.features, strict=True)
            ]
            piece = np.repeat(np.arange(len(columns), dtype=np.int32), [each.shape[1] for each in columns])
            columns.append(np.empty((5, 0), np.int32))
            request, position, token, row, block = np.concatenate(columns, axis=1)
            rows = RowSet(request, position, token, piece, row, block)
            content = tuple(column.tobytes() for column in (rows.names, piece, row, block))
            found = self._sets[key] = self._distinct.setdefault(content, rows)
        return found

    def _rows_of(self, rank: int, table: RowTable, by_token: bool) -> npt.NDArray[np.int32]:
        """Return request, position, token, row and block of each row that is no padding; shape (5, n)."""
        key = rank, id(table), by_token
        found = self._columns.get(key)
        if found is None:
            grid = table.numbers.swapaxes(0, 1) if by_token else table.numbers
            rows = grid.reshape(-1, 3)
            numbers, place = np.unique(rows[:, 0], return_inverse=True)
            here = [self._number_of(rank, table, number) if number >= 0 else -1 for number in numbers.tolist()]
            request = np.array(here, np.int32)[place]
            kept = np.flatnonzero(request >= 0)
            block = np.full(len(rows), -1) if table.blocks is None else table.blocks
            columns = np.stack([request, rows[:, 1], rows[:, 2], np.arange(len(rows)), block])
            found = self._columns[key] = columns[:, kept].astype(np.int32)
        return found

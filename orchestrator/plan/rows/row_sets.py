"""Sets of rows: the rows that a label holds on one rank, over all forwards in which it was set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.plan.rank_labels import RankLabel

_Int32 = npt.NDArray[np.int32]


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

    @property
    def names(self) -> npt.NDArray[np.int64]:
        """A number for each row that names its request and position."""
        return self.request.astype(np.int64) << 32 | self.position


def features_of(label: RankLabel) -> tuple[tuple[int, ...], bool] | None:
    """Return the shape of one row of a label, and whether its rows lie by tokens first ([T, B, ...]).

    None where no leading dimensions have as many elements as there are rows.
    """
    assert label.rows is not None
    return _features_of(label.shape, label.rows.numbers.shape[:-1])


@lru_cache(maxsize=4096)  # a run has a million records of few shapes
def _features_of(shape: tuple[int, ...], grid: tuple[int, ...]) -> tuple[tuple[int, ...], bool] | None:
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

    def of(self, rank: int, labels: Sequence[tuple[RowTable, bool]]) -> RowSet:
        """Return the rows of labels of one rank: the table of each, and whether its rows lie by tokens first.

        Equal rows are one object, also those of several ranks.
        """
        key = rank, tuple([(id(table), by_token) for table, by_token in labels])
        found = self._sets.get(key)
        if found is None:
            columns = [self._rows_of(rank, table, by_token) for table, by_token in labels]
            piece = np.repeat(np.arange(len(columns), dtype=np.int32), [each.shape[1] for each in columns])
            request, position, token, row = np.concatenate([*columns, np.empty((4, 0), np.int32)], axis=1)
            rows = RowSet(request, position, token, piece, row)
            content = tuple(column.tobytes() for column in (rows.names, piece, row))
            found = self._sets[key] = self._distinct.setdefault(content, rows)
        return found

    def _rows_of(self, rank: int, table: RowTable, by_token: bool) -> npt.NDArray[np.int32]:
        """Return request, position, token and row of each row that is no padding; shape (4, n)."""
        key = rank, id(table), by_token
        found = self._columns.get(key)
        if found is None:
            grid = table.numbers.swapaxes(0, 1) if by_token else table.numbers
            rows = grid.reshape(-1, 3)
            numbers, place = np.unique(rows[:, 0], return_inverse=True)
            here = [self._number_of(rank, table, number) if number >= 0 else -1 for number in numbers.tolist()]
            request = np.array(here, np.int32)[place]
            kept = np.flatnonzero(request >= 0)
            columns = np.stack([request, rows[:, 1], rows[:, 2], np.arange(len(rows))])
            found = self._columns[key] = columns[:, kept].astype(np.int32)
        return found

"""Rows of one label on both sides, read as its plan pairs them: whole, or what one rank holds of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.element_values import components_of, decode
from aclcmp.orchestrator.compare.gathered_rows import GatheredRows
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import Pair, Region, Source

SIDES = ("golden", "actual")
RowName = tuple[str, int]
"""Request and position; of rows without names their place in all dimensions but the last, and in that."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in memory: bits in `DType.memory`, and torch's name of its element type."""

    bits: npt.NDArray[np.generic]
    dtype: str

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Its values, as its shape has them."""
        flat = np.ascontiguousarray(self.bits).reshape(-1).view(np.uint8)
        return decode(flat, self.dtype).astype(np.float64).reshape(self.bits.shape)


class LabelRows:
    """The rows of a label: those that have names, or else all leading dimensions."""

    def __init__(self, plan: LabelPlan) -> None:
        """Take a plan whose pairs are whole tensors of real numbers. Raises ValueError for others."""
        self.plan = plan
        for pair in plan.pairs:
            if not pair.is_whole:
                raise ValueError("only summaries of its tensors were kept")
            if components_of(pair.golden.dtype) != 1:
                raise ValueError(f"it holds {pair.golden.dtype} numbers")
        whole = plan.pairs[0].whole_shape
        self._lead = max(len(whole) - 1, 0) if plan.rows is None else 1
        self._leading, features = whole[: self._lead], whole[self._lead :]
        self.count = math.prod(self._leading)
        self.features = math.prod(features)
        self.each = math.prod(features[:-1]) if features else 1
        """Rows of statistics in one of these."""
        self._columns = np.arange(self.features).reshape(features)
        self._numbers: dict[RowName, int] | None = None

    def names(self, rows: Sequence[int]) -> list[RowName]:
        """Return the names of rows."""
        if self.plan.rows is None:
            length = self._leading[-1] if self._leading else 1
            return [(str(row // length), row % length) for row in rows]
        named = self.plan.rows
        return [(named.requests[number], position) for number, position, _ in named.table[list(rows)].tolist()]

    def words(self, row: int) -> str:
        """Return the name of a row in words."""
        if self.plan.rows is not None:
            return self.plan.rows.words(row, row)
        return f"row {row}" if len(self._leading) < 2 else f"row {list(map(int, np.unravel_index(row, self._leading)))}"

    def names_up_to(self, rows: Sequence[int]) -> list[RowName] | None:
        """Return the names of rows with all that come before them in their sequences; None where some are not here."""
        names = self.names(rows)
        found = {(request, before): None for request, position in names for before in range(position + 1)}
        return None if self.find(list(found)) is None else list(found)

    def tokens(self, rows: Sequence[int]) -> list[int]:
        """Return the token ids of rows; none where one is not known."""
        found = [] if self.plan.rows is None else self.plan.rows.table[list(rows), 2].tolist()
        return [] if -1 in found else found

    def find(self, names: Sequence[RowName]) -> list[int] | None:
        """Return the numbers of the rows of these names; None where one has no row here."""
        if self._numbers is None:
            self._numbers = {name: row for row, name in enumerate(self.names(range(self.count)))}
        found = [self._numbers.get(name) for name in names]
        return None if None in found else [row for row in found if row is not None]

    def columns(self, rank: int) -> npt.NDArray[np.int64]:
        """Return the features that a rank holds, in the order of the whole."""
        held = [self._columns_of(pair) for pair in self.plan.pairs if pair.rank == rank]
        return np.unique(np.concatenate([np.empty(0, np.int64), *held]))

    def read(
        self, side: str, rows: Sequence[int], columns: npt.NDArray[np.int64] | None = None, rank: int = -1
    ) -> StoredTensor | None:
        """Read rows of a side, [rows, columns]; None where a part is on no rank.

        Of replicas that of `rank` counts. Raises ShardError where a file cannot be read.
        """
        pairs = sorted(self.plan.pairs, key=lambda pair: pair.rank == rank)
        wanted = np.arange(self.features) if columns is None else columns
        place = np.full(self.features, -1)
        place[wanted] = np.arange(len(wanted))
        dtype = self._dtype(side)
        found = np.zeros((len(rows), len(wanted)), DTYPES[dtype].memory)
        known = np.zeros(found.shape, bool)
        for pair in pairs:
            to = place[self._columns_of(pair)]
            for number, values in self._read_pair(pair, side, rows, dtype):
                found[number, to[to >= 0]] = values[to >= 0]
                known[number, to[to >= 0]] = True
        return StoredTensor(found, dtype) if known.all() else None

    def read_by_name(
        self, side: str, names: Sequence[RowName], columns: npt.NDArray[np.int64] | None = None, rank: int = -1
    ) -> StoredTensor | None:
        """Read the rows of these names, as `read` does."""
        rows = self.find(names)
        return None if rows is None else self.read(side, rows, columns, rank)

    def _dtype(self, side: str) -> str:
        """Return the element type in which a side is read: sums and sides of several types in float64."""
        sums = any(pair.more_golden if side == SIDES[0] else pair.more_actual for pair in self.plan.pairs)
        dtypes = {(pair.golden if side == SIDES[0] else pair.actual).dtype for pair in self.plan.pairs}
        return "float64" if sums or len(dtypes) > 1 else next(iter(dtypes))

    def _columns_of(self, pair: Pair) -> npt.NDArray[np.int64]:
        slices = pair.region.slices[self._lead :]
        return self._columns[slices].reshape(-1)

    def _read_pair(
        self, pair: Pair, side: str, rows: Sequence[int], dtype: str
    ) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
        """Yield those of the rows that a pair has: the number among `rows`, and the flat elements."""
        is_golden = side == SIDES[0]
        region = pair.golden_region if is_golden else pair.actual_region
        sources = (pair.golden, *pair.more_golden) if is_golden else (pair.actual, *pair.more_actual)
        readers = [_Reader(source) for source in sources]
        for number, row in enumerate(rows):
            at = np.unravel_index(row, self._leading) if self._leading else ()
            inner = tuple(int(a) - begin for a, begin in zip(at, pair.region.start, strict=False))
            if not all(0 <= place < size for place, size in zip(inner, pair.region.shape, strict=False)):
                continue
            start = tuple(begin + by for begin, by in zip(region.start, inner, strict=False))
            box = Region((*start, *region.start[self._lead :]), (*(1 for _ in start), *region.shape[self._lead :]))
            parts = [reader.read(box) for reader in readers]
            if dtype == parts[0].dtype:
                yield number, parts[0].bits
            else:
                yield number, np.sum([part.values for part in parts], axis=0)
        for reader in readers:
            reader.check()


class _Reader:
    """A stored tensor, open for reading."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._gathered = GatheredRows(source) if source.places is not None else None
        self._stored = open_bits(source) if source.places is None else None

    def read(self, region: Region) -> StoredTensor:
        """Return a region of it, flat."""
        memory = DTYPES[self._source.dtype].memory
        if self._gathered is not None:
            bits = self._gathered.read(region).view(memory)
        else:
            assert self._stored is not None
            bits = np.array(self._stored.bits.reshape(self._source.shape)[region.slices]).reshape(-1)
        return StoredTensor(bits, self._source.dtype)

    def check(self) -> None:
        """Raise ShardError unless the file holds what was recorded."""
        for each in (self._gathered, self._stored):
            if each is not None:
                each.check()

"""Statistics of one pair after one pass over its bytes: sums, extremes, counts, and sums by row.

x is the golden side, y the actual one, d = y - x, all in float64. Statistics of disjoint regions of the same label add
up with `merge`. Complex tensors are compared as their real and imaginary parts, which are then the elements counted.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.choices import RowChoices
from aclcmp.orchestrator.core.compact import compact, numbers_of, with_numbers
from aclcmp.orchestrator.core.regions import LabelKey

_Float64 = npt.NDArray[np.float64]


def _sum_by(place: npt.NDArray[np.intp], first: _Float64, second: _Float64) -> _Float64:
    """Sum what two arrays hold for each place."""
    return np.bincount(place, np.concatenate([first, second])).astype(np.float64, copy=False)


class RowSums:
    """Sums by row (token): a row is the last axis of the whole tensor; a 0-d or 1-d tensor is one row.

    Whole tensors of more than 65,536 rows are summed in groups of `group` consecutive rows (a power of two that follows
    from the whole's shape alone, so that all regions of a label agree).

    `index` are the sorted numbers of the row groups that were seen, shape (r,). Nothing may be changed: indices of
    consecutive numbers are shared, and sums are kept as bytes, for three arrays more each take longer than 16 rows.
    """

    __slots__ = ("group", "index", "sums")

    def __init__(self, group: int, index: npt.NDArray[np.int64], sum_xx: _Float64, sum_dd: _Float64) -> None:
        """Keep the sums, of shape (r,) each."""
        if index.size and int(index[-1]) - int(index[0]) == index.size - 1:
            index = _consecutive(int(index[0]), index.size)
        self.group = group
        self.index = index
        self.sums = np.asarray(sum_xx, np.float64).tobytes() + np.asarray(sum_dd, np.float64).tobytes()
        """Those of `sum_xx`, then those of `sum_dd`."""

    @property
    def sum_xx(self) -> _Float64:
        """Sum of x^2 by row group, shape (r,)."""
        return np.frombuffer(self.sums, np.float64, self.index.size)

    @property
    def sum_dd(self) -> _Float64:
        """Sum of d^2 by row group, shape (r,)."""
        return np.frombuffer(self.sums, np.float64, self.index.size, 8 * self.index.size)

    @property
    def count(self) -> int:
        """How many row groups there are, also where their sums were not kept."""
        return self.index.size

    def __repr__(self) -> str:
        return f"RowSums({self.group}, {self.index.tolist()}, {self.sum_xx.tolist()}, {self.sum_dd.tolist()})"

    def __reduce__(self) -> tuple[Callable[..., RowSums], tuple[object, ...]]:
        """Leave out the numbers of rows that follow each other."""
        index = self.index
        known = index.size and int(index[-1]) - int(index[0]) == index.size - 1
        return _sums_again, (self.group, (int(index[0]), index.size) if known else index, self.sums)

    @staticmethod
    def empty(group: int = 0) -> RowSums:
        """Return the sums of no rows; group 0 merges with any."""
        return RowSums(group, np.empty(0, np.int64), np.empty(0), np.empty(0))

    def merge(self, other: RowSums) -> RowSums:
        """Return the sums over both; they must come from disjoint regions of one whole tensor."""
        if self.index.size and other.index.size and self.group != other.group:
            raise ValueError(f"row groups of {self.group} and of {other.group} rows: not parts of one tensor")
        group = max(self.group, other.group)
        if np.array_equal(self.index, other.index):
            return RowSums(group, self.index, self.sum_xx + other.sum_xx, self.sum_dd + other.sum_dd)
        for one, two in ((self, other), (other, self)):
            if one.index.size == 0 or two.index.size == 0 or one.index[-1] < two.index[0]:
                return one._followed_by(two, group)
        index, place = np.unique(np.concatenate([self.index, other.index]), return_inverse=True)
        sum_xx = _sum_by(place, self.sum_xx, other.sum_xx)
        sum_dd = _sum_by(place, self.sum_dd, other.sum_dd)
        return RowSums(group, index, sum_xx, sum_dd)

    def _followed_by(self, other: RowSums, group: int) -> RowSums:
        """Return the sums over both where all rows of the other come behind these."""
        mine, others = 8 * self.index.size, 8 * other.index.size
        sums = self.sums[:mine] + other.sums[:others] + self.sums[mine:] + other.sums[others:]
        index = np.concatenate([self.index, other.index])
        if index.size and int(index[-1]) - int(index[0]) == index.size - 1:
            return _sums_again(group, (int(index[0]), index.size), sums)
        return _sums_again(group, index, sums)


class RowsLeftOut(RowSums):
    """Rows of which only the number was kept, as report.h5 does of what matches."""

    __slots__ = ("_count",)

    def __init__(self, group: int, count: int) -> None:
        super().__init__(group, np.empty(0, np.int64), np.empty(0), np.empty(0))
        self._count = max(count, 0)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._count

    def __reduce__(self) -> tuple[Callable[..., RowSums], tuple[object, ...]]:
        return RowsLeftOut, (self.group, self._count)


def _sums_again(group: int, index: tuple[int, int] | npt.NDArray[np.int64], sums: bytes) -> RowSums:
    found = RowSums.__new__(RowSums)
    found.group, found.sums = group, sums
    found.index = _consecutive(*index) if isinstance(index, tuple) else index
    return found


@functools.lru_cache(64)
def _consecutive(first: int, count: int) -> npt.NDArray[np.int64]:
    index = np.arange(first, first + count)
    index.flags.writeable = False
    return index


class Basis(str, Enum):
    """Data from which the statistics of a pair were taken, the best first."""

    VALUES = "values"
    """Both tensors, element by element."""
    FINGERPRINT = "fingerprint"
    """Random projections of both: sum_dd is an estimate (see `compare.summaries`), and what follows from it."""
    ROW_FINGERPRINT = "row fingerprint"
    """The same of each row alone, with fewer buckets: a wider estimate."""
    NORMS = "norms"
    """Moments and norms by row of both: sum_dd is a lower bound."""


@compact
@dataclass(frozen=True, eq=False)
class PairStats:
    """Mergeable statistics of one pair. Sums and extremes run over positions where both sides are finite.

    Where `basis` is not VALUES, what single elements would tell is nan (counts: -1).
    """

    n: int
    n_equal: int
    """Positions with the same value and the same sign of zero, or the same non-finite class (NaN, +inf, -inf)."""
    n_finite: int
    sum_x: float
    sum_y: float
    sum_xx: float
    sum_yy: float
    sum_xy: float
    sum_d: float
    sum_dd: float
    sum_abs_d: float
    max_abs_d: float
    """Largest |d|; 0.0 when n_finite is 0."""
    max_abs_d_index: int
    """Flat index, in the whole tensor, of the first position that has max_abs_d; -1 when n_finite is 0."""
    max_abs_d_x: float
    max_abs_d_y: float
    min_x: float
    """+inf when n_finite is 0; max_x is then -inf; likewise for y."""
    max_x: float
    min_y: float
    max_y: float
    sum_rel_d: float
    """Sum of |d / x| over positions with x != 0."""
    max_rel_d: float
    n_over_1k: int
    """Positions with |d| > 1e-3 |x|."""
    n_over_5k: int
    """Positions with |d| > 5e-3 |x|."""
    n_over_tolerance: int
    """Positions with |d| > atol + rtol |x|, with the operator-level tolerance of the narrower dtype."""
    max_ulp: int
    """Largest distance in representable values; -1 when the sides' dtypes differ or are not binary floats."""
    nan_x: int
    posinf_x: int
    neginf_x: int
    nan_y: int
    posinf_y: int
    neginf_y: int
    n_nonfinite_equal: int
    """Positions where both sides are non-finite in the same way (NaN and NaN, or infinities of one sign).

    In masks the lowest values of a type are as good as -inf, and count as such where the other side's are, too.
    """
    mantissa_x: int
    """How many leading bits of the mantissa golden's values use: 7 of bfloat16 ones, in any dtype; -1: unknown."""
    mantissa_y: int
    rows: RowSums
    basis: Basis = Basis.VALUES
    choices: RowChoices | None = None
    """What the rows prefer, where they are logits."""

    @staticmethod
    def empty() -> PairStats:
        """Return the statistics of no elements, which merge with any."""
        inf = math.inf
        return PairStats(
            n=0,
            n_equal=0,
            n_finite=0,
            sum_x=0.0,
            sum_y=0.0,
            sum_xx=0.0,
            sum_yy=0.0,
            sum_xy=0.0,
            sum_d=0.0,
            sum_dd=0.0,
            sum_abs_d=0.0,
            max_abs_d=0.0,
            max_abs_d_index=-1,
            max_abs_d_x=0.0,
            max_abs_d_y=0.0,
            min_x=inf,
            max_x=-inf,
            min_y=inf,
            max_y=-inf,
            sum_rel_d=0.0,
            max_rel_d=0.0,
            n_over_1k=0,
            n_over_5k=0,
            n_over_tolerance=0,
            max_ulp=-1,
            nan_x=0,
            posinf_x=0,
            neginf_x=0,
            nan_y=0,
            posinf_y=0,
            neginf_y=0,
            n_nonfinite_equal=0,
            mantissa_x=-1,
            mantissa_y=-1,
            rows=RowSums.empty(),
        )

    def merge(self, other: PairStats) -> PairStats:
        """Return the statistics over both; they must come from disjoint regions of one pair of whole tensors."""
        mine, others = numbers_of(self), numbers_of(other)
        merged = [one + two for one, two in zip(mine, others, strict=True)]
        for place in _LARGEST:
            merged[place] = max(mine[place], others[place])
        for place in _SMALLEST:
            merged[place] = min(mine[place], others[place])
        worst = max(mine, others, key=_rank_of_max_abs_d)
        for place in _OF_MAX_ABS_D:
            merged[place] = worst[place]
        basis = self.basis if self.basis is other.basis else max(self.basis, other.basis, key=list(Basis).index)
        return with_numbers(PairStats, merged, self.rows.merge(other.rows), basis, self._merge_choices(other))

    def _merge_choices(self, other: PairStats) -> RowChoices | None:
        if self.choices is None or other.choices is None:
            return self.choices or other.choices
        return self.choices.merge(other.choices)


_PLACES = {field.name: place for place, field in enumerate(dataclasses.fields(PairStats))}
_LARGEST = [_PLACES[name] for name in ("max_x", "max_y", "max_rel_d", "max_ulp", "mantissa_x", "mantissa_y")]
_SMALLEST = [_PLACES[name] for name in ("min_x", "min_y")]
_OF_MAX_ABS_D = [_PLACES[name] for name in ("max_abs_d", "max_abs_d_index", "max_abs_d_x", "max_abs_d_y")]
_N_FINITE = _PLACES["n_finite"]


def _rank_of_max_abs_d(numbers: tuple[float, ...]) -> tuple[bool, float, float]:
    largest, index = (numbers[place] for place in _OF_MAX_ABS_D[:2])
    return numbers[_N_FINITE] > 0, largest, -index


Outcome = PairStats | str
"""The result of comparing a (label, rank): its statistics, or in words why it has none."""
Outcomes = dict[tuple[LabelKey, int], Outcome]

"""What rows of logits prefer: each side's best tokens and its distribution over the vocabulary, row by row.

x is the golden side, y the actual one, d = y - x, all in float64. Facts of disjoint parts of the vocabulary, as ranks
hold them, add up with `merge`, as those of other rows do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BEST = 5
"""How many of the best tokens of each side are kept."""
SIDES = ("golden", "actual")

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Table = npt.NDArray[np.void]

_KINDS = {"i": "<i4", "x": "<f8", "y": "<f8"}
_BEST_FIELDS = [(f"{side}_{name}", kind, (BEST,)) for side in SIDES for name, kind in _KINDS.items()]
_FLOATS = ("largest_x", "exp_x", "exp_x_xy", "largest_y", "exp_y", "sum_d", "sum_dd", "sum_xx")
ROW_TYPE = np.dtype([("row", "<i8"), *_BEST_FIELDS, ("n", "<i8"), *((name, "<f8") for name in _FLOATS)])
"""Facts of one row, the number of which in the whole is `row`.

`golden_i` are the ids of golden's best tokens above -inf, the best first and of equal ones the smallest id; -1 where
the part has fewer. `golden_x` and `golden_y` are their values on both sides; `actual_*` likewise.
`largest_x` is the largest x, `exp_x` the sum of exp(x - largest_x), `exp_x_xy` that of exp(x - largest_x) · (x - y),
likewise for y. The last sums run over the `n` tokens that are finite on both sides.
"""


def is_vocabulary(label: str) -> bool:
    """Tell by its name whether the last dimension of a label is the vocabulary: `lm_head` or `logits` of the model.

    Names inside of layers are others: a router has logits too.
    """
    *before, last = label.split(".")
    return last in ("lm_head", "logits") and not any(part.isdecimal() for part in before)


@dataclass(frozen=True, slots=True, eq=False)
class RowChoices:
    """Facts of rows of logits, in ascending order of the rows."""

    table: Table
    """Of `ROW_TYPE`."""

    def merge(self, other: RowChoices) -> RowChoices:
        """Return the facts of both; of rows that both have, each has another part of the vocabulary."""
        both = np.concatenate([self.table, other.table])
        rows, place = np.unique(both["row"], return_inverse=True)
        found = np.empty(len(rows), ROW_TYPE)
        found[place] = both
        if len(rows) < len(both):
            _, mine, others = np.intersect1d(self.table["row"], other.table["row"], return_indices=True)
            found[np.searchsorted(rows, self.table["row"][mine])] = _add(self.table[mine], other.table[others])
        return RowChoices(found)

    @property
    def kl(self) -> Floats:
        """KL(golden ‖ actual) of the distributions that softmax gives, in nats, by row."""
        t = self.table
        with np.errstate(all="ignore"):
            golden = t["largest_x"] + np.log(t["exp_x"])
            actual = t["largest_y"] + np.log(t["exp_y"])
            kl: Floats = np.maximum(t["exp_x_xy"] / t["exp_x"] - golden + actual, 0.0)
        return kl

    @property
    def overlap(self) -> Floats:
        """Share of golden's `BEST` tokens that are among actual's, by row."""
        golden, actual = self.table["golden_i"], self.table["actual_i"]
        there = (golden[:, :, None] == actual[:, None, :]).any(axis=2) & (golden >= 0)
        share: Floats = there.sum(axis=1) / np.maximum((golden >= 0).sum(axis=1), 1)
        return share

    @property
    def spread(self) -> Floats:
        """Standard deviation of d over the vocabulary by row; an offset of a whole row moves no choice."""
        n = np.maximum(self.table["n"], 1)
        mean = self.table["sum_d"] / n
        deviation: Floats = np.sqrt(np.maximum(self.table["sum_dd"] / n - mean * mean, 0.0))
        return deviation

    @property
    def size(self) -> Floats:
        """Root mean square of x by row."""
        size: Floats = np.sqrt(self.table["sum_xx"] / np.maximum(self.table["n"], 1))
        return size

    @property
    def gap(self) -> Floats:
        """Difference of golden's two best values by row, inf where there is one token only."""
        values = self.table["golden_x"]
        return _minus(values[:, 0], values[:, 1])

    @property
    def margin(self) -> Floats:
        """How much golden prefers its best token to actual's best by row, in golden's logits; 0 where they are one."""
        return _minus(self.table["golden_x"][:, 0], self.table["actual_x"][:, 0])

    @property
    def shift(self) -> Floats:
        """How far actual moved the difference of these two tokens by row: its choice is another from `margin` on."""
        actual = _minus(self.table["golden_y"][:, 0], self.table["actual_y"][:, 0])
        return _minus(self.margin, actual)

    @property
    def moved_golden(self) -> npt.NDArray[np.bool_]:
        """Whether of the two best tokens golden's is the one whose logit differs more, by row."""
        golden, actual = (
            np.abs(_minus(self.table[f"{side}_y"][:, 0], self.table[f"{side}_x"][:, 0])) for side in SIDES
        )
        return golden >= actual


def _minus(one: Floats, other: Floats) -> Floats:
    """Subtract; infinities of one sign are equal."""
    with np.errstate(invalid="ignore"):
        return np.where(one == other, 0.0, one - other)


def _add(one: Table, other: Table) -> Table:
    """Add up the facts of the same rows over two parts of the vocabulary."""
    found = one.copy()
    for side, value in zip(SIDES, "xy", strict=True):
        fields = [f"{side}_{name}" for name in "ixy"]
        together = {name: np.concatenate([one[name], other[name]], axis=1) for name in fields}
        order = best_first(together[f"{side}_i"], together[f"{side}_{value}"])[:, :BEST]
        for name in fields:
            found[name] = np.take_along_axis(together[name], order, axis=1)
    for value, sums in (("x", ("exp_x", "exp_x_xy")), ("y", ("exp_y",))):
        name = f"largest_{value}"
        largest = found[name] = np.maximum(one[name], other[name])
        with np.errstate(invalid="ignore"):  # infinities of both signs
            for each in sums:
                found[each] = _scaled(one, each, name, largest) + _scaled(other, each, name, largest)
    for name in ("n", "sum_d", "sum_dd", "sum_xx"):
        found[name] = one[name] + other[name]
    return found


def best_first(ids: npt.NDArray[np.int32], values: Floats) -> npt.NDArray[np.intp]:
    """Return the order of each row by descending values, of equal ones by ids; places without a token come last."""
    order: npt.NDArray[np.intp] = np.lexsort((ids, -values, ids < 0), axis=-1)
    return order


def _scaled(part: Table, name: str, of: str, largest: Floats) -> Floats:
    """Return sums of exponentials relative to another largest value."""
    factor = np.where(part[of] == largest, 1.0, np.exp(part[of] - largest))
    return np.where(factor > 0.0, part[name] * factor, 0.0)


def choices_of(x: Floats, y: Floats, first_row: int, first_id: int) -> RowChoices:
    """Return the facts of rows of logits, shape (rows, tokens), which begin at these places of the whole.

    NaN is no token's choice, as -inf is none; what is not finite stays out of the sums over d.
    """
    found = np.zeros(len(x), ROW_TYPE)
    found["row"] = first_row + np.arange(len(x))
    for number, (golden, actual) in enumerate(zip(x, y, strict=True)):
        found[number] = _row(found[number], golden, actual, first_id)
    return RowChoices(found)


def _row(found: np.void, x: Floats, y: Floats, first_id: int) -> np.void:
    with np.errstate(invalid="ignore", over="ignore"):
        d = y - x
        sum_dd = d @ d
        whole = np.isfinite(sum_dd)  # then all of both sides is, which spares a search
        if not whole:
            x, y = (np.where(np.isnan(side), -np.inf, side) for side in (x, y))
            d = y - x
        largest = []
        for side, values in zip(SIDES, (x, y), strict=True):
            best = _best(values)
            for name, empty, of_best in (("i", -1, first_id + best), ("x", -np.inf, x[best]), ("y", -np.inf, y[best])):
                found[f"{side}_{name}"] = empty
                found[f"{side}_{name}"][: len(best)] = of_best
            largest.append(values[best[0]] if len(best) else -np.inf)
        found["largest_x"], found["largest_y"] = largest
        exp_x, exp_y = map(_exponentials, (x, y), largest)
        found["exp_x"], found["exp_y"] = exp_x.sum(), exp_y.sum()
        if whole:
            found["exp_x_xy"] = -(exp_x @ d)
        else:
            likely, finite = exp_x > 0.0, np.isfinite(d)
            found["exp_x_xy"] = -(exp_x[likely] * d[likely]).sum()
            x, d = x[finite], d[finite]
            sum_dd = d @ d
    found["n"], found["sum_d"], found["sum_dd"], found["sum_xx"] = d.size, d.sum(), sum_dd, x @ x
    return found


def _exponentials(values: Floats, largest: float) -> Floats:
    """Return exp of all values relative to the largest one: 1 at it, also where it is infinite."""
    found: Floats = np.exp(values - largest) if np.isfinite(largest) else (values == largest).astype(np.float64)
    return found


def _best(values: Floats) -> npt.NDArray[np.intp]:
    """Return the places of the `BEST` largest values above -inf, of equal ones the first first."""
    step = 64
    candidates = np.arange(values.size)
    if values.size > BEST * step:
        # as many blocks have a value from this one on, so the best are among those
        blocks = np.maximum.reduceat(values, np.arange(0, values.size, step))
        candidates = np.flatnonzero(values >= np.partition(blocks, -BEST)[-BEST])
    best = candidates[np.lexsort((candidates, -values[candidates]))[:BEST]]
    return best[values[best] > -np.inf]


def join_choices(parts: Sequence[RowChoices]) -> RowChoices:
    """Return the facts of parts whose rows follow each other."""
    return RowChoices(np.concatenate([part.table for part in parts] or [np.empty(0, ROW_TYPE)]))

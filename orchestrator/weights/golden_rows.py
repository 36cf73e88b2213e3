"""The rows of golden's weights, found by their hashes; and which of them a parameter of the other side holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.weight_table import NOT_ZERO, HashedParameter, Hashes, RowForm
from aclcmp.orchestrator.weights.names import numbers_of

Places = npt.NDArray[np.int64]
"""For each row its place among all rows of golden, -1 for none."""

WHOLE = RowForm()
_LEAST_RUN = 8
"""Rows of one value that follow golden's by chance: shorter runs tell nothing."""
_MOST_STARTS = 64
"""Places at which a run that fits in many may begin, of which the longest is looked for."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of a parameter, and which rows of golden's they are."""

    begin: int
    """The first of them in the parameter."""
    count: int
    golden: int = -1
    """Number of golden's parameter; -1 for rows that are not golden's."""
    form: RowForm = WHOLE
    """How golden's rows were taken."""
    row: int = 0
    """The first of them in golden's parameter, taken in that form."""
    zero: bool = False
    """Whether they are zero throughout, and not golden's."""

    @property
    def known(self) -> bool:
        """Whether they are golden's."""
        return self.golden >= 0


class GoldenRows:
    """The rows of all parameters of golden, in all forms in which they were hashed."""

    def __init__(self, parameters: Sequence[HashedParameter]) -> None:
        self.parameters = parameters
        self._forms = [(number, form) for number, each in enumerate(parameters) for form in each.forms]
        parts = [rows for each in parameters for rows in each.forms.values()]
        self.starts: Places = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        self.hashes: Hashes = np.concatenate([np.empty(0, np.uint64), *parts])
        self._form_of = np.repeat(np.arange(len(parts), dtype=np.int32), [len(rows) for rows in parts])
        self._names = np.array([number for number, _ in self._forms], np.int64)
        self._preferred: dict[str, Places] = {}
        self._order = np.argsort(self.hashes, kind="stable")
        self._sorted = self.hashes[self._order]

    def find(self, parameter: HashedParameter) -> Places:
        """Return which rows of golden a parameter holds.

        Rows that fit in several places are taken where the run of the rows beside them goes on, else where the longest
        run is; of equal ones that of the same name, then of the same layer.
        """
        (rows,) = parameter.forms.values()
        low, high = (np.searchsorted(self._sorted, rows, side) for side in ("left", "right"))
        found: Places = np.full(len(rows), -1, np.int64)
        single = high - low == 1
        found[single] = self._order[low[single]]
        zero = rows < NOT_ZERO
        if zero.all() or _is_vector(parameter):
            zero = np.zeros(len(rows), bool)
        found[zero] = -1  # rows of padding are in many places; they are golden's where a run goes on
        open_rows = (high > low) & (found < 0)
        if open_rows.any():
            for backwards in (False, True):
                self._continue_runs(rows, found, open_rows, backwards=backwards)
            left = np.flatnonzero(open_rows & (found < 0) & ~zero)
            self._find_longest(rows, found, left, low, high, self._preferences(parameter))
            self._continue_runs(rows, found, open_rows, backwards=False)
        if rows.size and _is_vector(parameter):
            self._drop_chance_runs(found)
        return found

    def segments(self, parameter: HashedParameter, found: Places) -> list[Segment]:
        """Return what `find` found as runs."""
        (rows,) = parameter.forms.values()
        if not len(rows):
            return []
        form = np.where(found >= 0, self._form_of[found], -1 - (rows < NOT_ZERO).astype(np.int64))
        follows = np.where(found[1:] >= 0, found[1:] == found[:-1] + 1, True) & (form[1:] == form[:-1])
        begins = np.concatenate([[0], np.flatnonzero(~follows) + 1])
        ends = np.concatenate([begins[1:], [len(rows)]])
        segments = []
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            number = int(form[begin])
            if number < 0:
                segments.append(Segment(begin, end - begin, zero=number == -2))
                continue
            golden, taken = self._forms[number]
            segments.append(Segment(begin, end - begin, golden, taken, int(found[begin] - self.starts[number])))
        return segments

    def rows(self, golden: int, form: RowForm, begin: int, count: int) -> list[Hashes]:
        """Return the hashes of rows of a parameter, in its own type and as each to which it was cast."""
        wanted = form.part, form.parts, form.transposed
        return [
            hashes[begin : begin + count]
            for each, hashes in self.parameters[golden].forms.items()
            if (each.part, each.parts, each.transposed) == wanted and begin + count <= len(hashes)
        ]

    def slice_of(self, segment: Segment) -> tuple[int, int] | None:
        """Return the number of an even slice of a parameter, and how many there are; None for the whole."""
        if not segment.known:
            return None
        if segment.form.parts > 1:
            return segment.form.part, segment.form.parts
        slices, left = divmod(len(self.parameters[segment.golden].forms[segment.form]), segment.count)
        even = not left and not segment.row % segment.count and slices > 1
        return (segment.row // segment.count, slices) if even else None

    def unheld(self, golden: int, hashes: Hashes, forms: Iterable[tuple[int, bool]]) -> npt.NDArray[np.bool_]:
        """Tell of each row of a parameter whether no rank holds it, in any of the forms that are given.

        `hashes` are those of all ranks, sorted. A form is (number of parts, transposed); rows count as held if all
        their parts are.
        """
        found: npt.NDArray[np.bool_] | None = None
        for parts, transposed in forms:
            held: npt.NDArray[np.bool_] | None = None
            for part in range(parts):
                of_part = [
                    _is_in(rows, hashes)
                    for each, rows in self.parameters[golden].forms.items()
                    if (each.part, each.parts, each.transposed) == (part, parts, transposed)
                ]
                any_type = np.logical_or.reduce(of_part)
                held = any_type if held is None else held & any_type
            assert held is not None
            found = ~held if found is None else found & ~held
        assert found is not None
        return found

    def _continue_runs(self, rows: Hashes, found: Places, wanted: npt.NDArray[np.bool_], *, backwards: bool) -> None:
        """Take rows where the run of the last known row before them (or behind them) goes on."""
        step = -1 if backwards else 1
        known = np.where(found >= 0, np.arange(len(rows)), len(rows) if backwards else -1)[::step]
        last = (np.minimum if backwards else np.maximum).accumulate(known)[::step]
        at = np.flatnonzero(wanted & (found < 0) & (last >= 0) & (last < len(rows)))
        source = found[last[at]]
        place = source + at - last[at]
        inside = (place >= 0) & (place < len(self.hashes))
        at, place, source = at[inside], place[inside], source[inside]
        right = (self._form_of[place] == self._form_of[source]) & (self.hashes[place] == rows[at])
        found[at[right]] = place[right]

    def _find_longest(
        self, rows: Hashes, found: Places, left: Places, low: Places, high: Places, preferences: Places
    ) -> None:
        """Take open rows, stretch by stretch, where the longest run begins."""
        ends = np.flatnonzero(np.diff(left) != 1) + 1
        for stretch in np.split(left, ends) if len(left) else ():
            begin, end = int(stretch[0]), int(stretch[-1]) + 1
            while begin < end:
                place, length = self._longest(rows[begin:end], self._order[low[begin] : high[begin]], preferences)
                found[begin : begin + length] = np.arange(place, place + length)
                begin += length

    def _longest(self, rows: Hashes, starts: Places, preferences: Places) -> tuple[int, int]:
        """Return where the longest run of rows begins, of places that fit the first, and its length."""
        room = self.starts[self._form_of[starts] + 1] - starts
        offset, step = 1, 1
        while offset < len(rows) and len(starts) > 1:
            fits = (room > offset) & (self.hashes[np.minimum(starts + offset, len(self.hashes) - 1)] == rows[offset])
            if not fits.any():
                break
            starts, room = starts[fits], room[fits]
            offset, step = offset + step, offset
        best, length = -1, 0
        for place in starts[np.lexsort((starts, preferences[self._form_of[starts]]))][:_MOST_STARTS].tolist():
            most = int(min(len(rows), self.starts[self._form_of[place] + 1] - place))
            equal = self.hashes[place : place + most] == rows[:most]
            run = most if equal.all() else int(np.argmin(equal))
            if run > length:
                best, length = place, run
        return best, length

    def _preferences(self, parameter: HashedParameter) -> Places:
        """Return for each form how little it is preferred for a parameter, of several that fit as well."""
        name, numbers = parameter.name, numbers_of(parameter.name)
        if name not in self._preferred:
            ranks = [
                0 if each.name == name else 1 if numbers_of(each.name) == numbers else 2 for each in self.parameters
            ]
            self._preferred[name] = np.array(ranks, np.int64)[self._names]
        return self._preferred[name]

    def _drop_chance_runs(self, found: Places) -> None:
        """Forget single values that follow golden's in too few places to tell anything."""
        known = np.flatnonzero(found >= 0)
        _, run, counts = np.unique(found[known] - known, return_inverse=True, return_counts=True)
        found[known[counts[run] < min(_LEAST_RUN, len(found))]] = -1


def _is_vector(parameter: HashedParameter) -> bool:
    return len(parameter.shape) < 2 or parameter.shape[1:] == (1,)


def _is_in(rows: Hashes, among: Hashes) -> npt.NDArray[np.bool_]:
    """Tell of each hash whether it is among sorted ones."""
    if not len(among):
        return np.zeros(len(rows), bool)
    return np.asarray(among[np.minimum(np.searchsorted(among, rows), len(among) - 1)] == rows)

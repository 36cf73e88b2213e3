"""Fold the labels of a task into few rows: what matches, and what is wrong only because something before it is.

A row stands for one label or for a run of consecutive ones of one status and origin. Where these are too many, some
are left to rows that count what they stand for.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict, Status, StatusGroup, is_price
from aclcmp.orchestrator.report.text.columns import ALLOWED, Marks, Shown

_HARMLESS = (StatusGroup.GOOD, StatusGroup.WARNING)
_SEVERITY = attrgetter("severity")
_BREAK = re.compile(r"[./]")
_AROUND = 3
"""Rows shown before the first one of interest when a task has too many."""


@dataclass(frozen=True, slots=True)
class Row:
    """Labels `first` to `last` (indices into the task's labels), each rank with its worst status among them."""

    first: int
    last: int
    marks: Marks
    """By rank; None: not labelled there."""
    status: Shown
    origin: Origin | None
    bitwise: bool
    rel_l2: float | None
    worst_row: float | None
    own: float | None = None
    """Largest own error, relative L2; None where none was measured."""
    depth: int = 0
    """0: high level, or of both levels; 1: all inside the label that the row before it stands for."""
    hidden: int = 0
    """Low-level labels that match and are not shown."""
    basis: Basis = Basis.VALUES
    """What the figures were taken from, at worst."""
    counts: tuple[tuple[Shown, Origin | None, int], ...] = ()
    """How many labels have which status and origin, the gravest first."""
    price: bool = False
    """Whether an error is the price of quantisation."""
    named: bool = False
    """Whether it is the label that the headline names: it has a row of its own."""

    @property
    def is_mixed(self) -> bool:
        """True if it holds labels of several statuses or origins."""
        return len(self.counts) > 1

    @property
    def size(self) -> int:
        """Number of labels."""
        return self.last - self.first + 1

    @property
    def quiet(self) -> bool:
        """True if all labels were compared and match, nearly match, or are wrong by inheritance only."""
        harmless = self.status.group in _HARMLESS or self.origin is Origin.INHERITED
        compared = all(mark is None or mark.group is not StatusGroup.GAP for mark in self.marks)
        return harmless and compared and not self.named


def row_of(
    index: int, label: LabelVerdict, ranks: Sequence[int], hidden: int = 0, first: LabelKey | None = None
) -> Row:
    """Return the row of one label, in which `hidden` others are; `ranks` are those of the whole report, sorted.

    `first` is the label that the headline names.
    """
    by_rank = {verdict.rank: verdict for verdict in label.ranks}
    whole = [verdict for verdict in label.ranks if verdict.status is not Status.MISMATCH]
    metrics = [verdict.metrics for verdict in whole if verdict.metrics is not None]
    origin = _strongest(verdict.origin for verdict in label.ranks if not verdict.excused)
    shown = {rank: _shown_status(verdict) for rank, verdict in by_rank.items()}
    status = max(shown.values(), key=_SEVERITY, default=label.status)
    return Row(
        first=index,
        last=index,
        marks=tuple(shown.get(rank) for rank in ranks),
        status=status,
        origin=origin,
        bitwise=bool(label.ranks) and all(verdict.bitwise for verdict in label.ranks),
        rel_l2=_largest(m.rel_l2 for m in metrics),
        worst_row=_largest(m.worst_row for m in metrics),
        own=_largest(verdict.own.rel_l2 for verdict in label.ranks if verdict.own is not None),
        depth=int(label.level.parent is not None),
        hidden=hidden,
        basis=_weakest(verdict.stats.basis for verdict in label.ranks if verdict.stats and not verdict.bitwise),
        counts=((status, origin, 1),),
        price=any(
            is_price(verdict.status, verdict.metrics.rel_l2, verdict.dtypes, verdict.limits)
            for verdict in label.ranks
            if verdict.metrics is not None
        ),
        named=label.key == first,
    )


def _shown_status(verdict: RankVerdict) -> Shown:
    """Return the status that is shown for a verdict."""
    differs = verdict.status.group in (StatusGroup.WARNING, StatusGroup.WRONG)
    return ALLOWED if verdict.excused and not verdict.ignored and differs else verdict.status


def merge(rows: Sequence[Row]) -> Row:
    """Return one row for consecutive rows: the worst of each."""
    if len(rows) == 1:
        return rows[0]
    counts: Counter[tuple[Shown, Origin | None]] = Counter()
    for row in rows:
        counts.update({(status, origin): number for status, origin, number in row.counts})
    gravest = sorted(counts, key=lambda each: (-each[0].severity, each[1] is not Origin.OWN))
    return Row(
        first=rows[0].first,
        last=rows[-1].last,
        marks=tuple(_worst(marks) for marks in zip(*(row.marks for row in rows), strict=True)),
        status=max((row.status for row in rows), key=_SEVERITY),
        origin=_strongest(row.origin for row in rows),
        bitwise=all(row.bitwise for row in rows),
        rel_l2=_largest(row.rel_l2 for row in rows if row.rel_l2 is not None),
        worst_row=_largest(row.worst_row for row in rows if row.worst_row is not None),
        own=_largest(row.own for row in rows if row.own is not None),
        depth=min(row.depth for row in rows),
        hidden=sum(row.hidden for row in rows),
        basis=_weakest(row.basis for row in rows),
        counts=tuple((*each, counts[each]) for each in gravest),
        price=any(row.price for row in rows),
        named=any(row.named for row in rows),
    )


def with_insides(labels: Sequence[LabelVerdict]) -> tuple[list[LabelVerdict], dict[LabelKey, int]]:
    """Put low-level labels behind the high-level one that they are part of; leave out those inside that all match.

    Also return how many were left out, by the label that they are part of.
    """
    shown = {label.key for label in labels}
    inside: dict[LabelKey, list[LabelVerdict]] = defaultdict(list)
    for label in labels:
        if label.level.parent in shown and label.level.parent is not None:
            inside[label.level.parent].append(label)
    hidden = {key: len(parts) for key, parts in inside.items() if all(part.status is Status.MATCH for part in parts)}
    ordered: list[LabelVerdict] = []
    for label in labels:
        if label.level.parent not in shown:
            ordered += [label, *(() if label.key in hidden else inside[label.key])]
    return ordered, hidden


def fold(rows: Sequence[Row], names: Sequence[str], most: int) -> list[Row]:
    """Fold the rows of a task, in golden order, into at most `most` rows."""
    for key in (_alike, _same_status_if_quiet, _all_quiet):
        folded = _fold_by(rows, key)
        if len(folded) <= most:
            return _split_at_layers(folded, rows, names, most)
    # still too many: keep those around the first one of interest, the rest becomes one row before and one after
    named = next((i for i, row in enumerate(folded) if row.named), None)
    interest = next((i for i, row in enumerate(folded) if not row.quiet), 0) if named is None else named
    start = max(0, interest - _AROUND)
    stop = start + most - 2
    return [merge(part) for part in (folded[:start], *([r] for r in folded[start:stop]), folded[stop:]) if part]


def _alike(row: Row) -> Hashable:
    return row.depth, row.status, row.origin, row.marks, row.named and row.first


def _same_status_if_quiet(row: Row) -> Hashable:
    return (row.depth, row.status, row.origin) if row.quiet else _alike(row)


def _all_quiet(row: Row) -> Hashable:
    return row.quiet or _alike(row)


def _fold_by(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> list[Row]:
    return [merge(list(group)) for _, group in groupby(rows, key)]


def _split_at_layers(folded: list[Row], rows: Sequence[Row], names: Sequence[str], most: int) -> list[Row]:
    """Show what matches in the layer of a fault apart from what matches before it."""
    result: list[Row] = []
    spare = most - len(folded)
    for row, after in zip(folded, [*folded[1:], None], strict=True):
        cut = _layer_start(row, names, names[after.first]) if after and row.status is Status.MATCH else row.first
        if spare > 0 and row.first < cut <= row.last:
            result += [merge(rows[row.first : cut]), merge(rows[cut : row.last + 1])]
            spare -= 1
        else:
            result.append(row)
    return result


def _layer_start(row: Row, names: Sequence[str], fault: str) -> int:
    """Return the first label from which on all of the row lie in the fault's layer; `last + 1` when none does."""
    layer = _layer(fault)
    cut = row.last + 1
    while layer is not None and cut > row.first and layer in _prefixes(names[cut - 1]):
        cut -= 1
    return cut


def _prefixes(name: str) -> list[str]:
    """Return the prefixes of a dotted name, shortest first, the name itself last."""
    return [name[: found.start()] for found in _BREAK.finditer(name) if found.start()] + [name]


class RunNames:
    """Names for runs of consecutive labels of one task, as short as is unambiguous within the task."""

    def __init__(self, names: Sequence[str]) -> None:
        """Count the prefixes of all labels of the task."""
        self._names = names
        self._all = Counter(prefix for name in names for prefix in _prefixes(name))

    def ends(self, row: Row) -> tuple[str, str]:
        """Return how the first and the last label of the row are called; equal where one prefix holds them all.

        A prefix stands for its labels only when all labels of the task that have it lie in the row. Within one layer
        the layer's name is not repeated: ("layers.2.attn", "mlp.up").
        """
        if row.size == 1:
            return self._names[row.first], self._names[row.first]
        run = self._names[row.first : row.last + 1]
        here = Counter(prefix for name in run for prefix in _prefixes(name))
        common = next((p for p in reversed(_prefixes(run[0])) if here[p] == len(run) == self._all[p]), None)
        if common is not None:
            return common, common

        def cut(name: str) -> str:
            return next((prefix for prefix in _prefixes(name) if here[prefix] == self._all[prefix]), name)

        first, last = cut(run[0]), cut(run[-1])
        layer = _layer(first)
        if layer is not None and layer == _layer(last):
            last = last[len(layer) + 1 :]
        return first, last


def _layer(name: str) -> str | None:
    """Return the part of a dotted name up to its first number ("layers.2"), if something follows it."""
    return next((prefix for prefix in _prefixes(name)[:-1] if prefix[-1].isdigit()), None)


def _weakest(bases: Iterable[Basis]) -> Basis:
    return max(bases, key=list(Basis).index, default=Basis.VALUES)


def _worst(marks: Iterable[Shown | None]) -> Shown | None:
    return max((mark for mark in marks if mark is not None), key=_SEVERITY, default=None)


def _strongest(origins: Iterable[Origin | None]) -> Origin | None:
    found = set(origins)
    return next((origin for origin in (Origin.OWN, Origin.INHERITED) if origin in found), None)


def _largest(values: Iterable[float]) -> float | None:
    return max((value for value in values if value == value), default=None)

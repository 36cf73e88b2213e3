"""The rank columns of the terminal table: one mark per rank while there is room, else one per group of ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from aclcmp.orchestrator.core.text import fold_ranks, of_ranks
from aclcmp.orchestrator.core.verdicts import Status, StatusGroup


@dataclass(frozen=True, slots=True)
class Allowed:
    """Stand-in for a status that the policy lets pass; it has the properties of a status."""

    value: str = "allowed"
    severity: int = Status.DRIFT.severity + 1
    group: StatusGroup = StatusGroup.WARNING
    mark: str = "○"
    ascii: str = "o"
    style: str = "cyan"


ALLOWED = Allowed()
Shown = Status | Allowed
Marks = tuple[Shown | None, ...]


def mark(status: Shown | None, plain: bool) -> Text:
    """Return the one-cell symbol of a status, blank where there is none; `plain`: in ASCII."""
    if status is None:
        return Text(" ")
    return Text(status.ascii if plain else status.mark, status.style)


def legend(statuses: set[Shown], plain: bool) -> list[str]:
    """Return what each symbol means, for the statuses that occur; that of a match speaks for itself."""
    explained = [each for each in (*Status, ALLOWED) if each in statuses and each is not Status.MATCH]
    return [f"{mark(each, plain).plain} {each.value}" for each in explained]


@dataclass(frozen=True, slots=True)
class RankBlock:
    """The rank columns of one table: its header, one cell per row, and what the header's letters mean."""

    header: str
    cells: tuple[Text, ...]
    legend: tuple[str, ...]


def rank_block(ranks: Sequence[int], rows: Sequence[Marks], room: int, plain: bool) -> RankBlock:
    """Lay out one cell per row within `room` terminal cells; the widest layout that fits is taken.

    One spaced column per rank; one dense column per rank; one column per group of ranks that look the same in all rows;
    the number of ranks per status.
    """
    width = len(str(max(ranks, default=0)))
    if len(ranks) * (width + 1) - 1 <= room:
        header = " ".join(str(rank).rjust(width) for rank in ranks)
        return RankBlock(header, tuple(_line(marks, width, " ", plain) for marks in rows), ())
    if len(ranks) <= min(room, 10) and width == 1:
        return RankBlock("".join(map(str, ranks)), tuple(_line(marks, 1, "", plain) for marks in rows), ())
    return _group_columns(ranks, rows, room, plain) or _count_columns(rows, plain)


def _line(marks: Sequence[Shown | None], width: int, gap: str, plain: bool) -> Text:
    return Text(gap).join([Text(" " * (width - 1)) + mark(status, plain) for status in marks])


def _group_columns(ranks: Sequence[int], rows: Sequence[Marks], room: int, plain: bool) -> RankBlock | None:
    groups: dict[Marks, list[int]] = {}
    for i, rank in enumerate(ranks):
        groups.setdefault(tuple(marks[i] for marks in rows), []).append(rank)
    members = list(groups.values())
    names = [fold_ranks(group) for group in members]
    if len("  ".join(names)) > room:
        names = [_letter(i) for i in range(len(members))]
    if len(" ".join(names)) > room:
        return None
    gap = "  " if len("  ".join(names)) <= room else " "
    cells = (
        Text(gap).join(
            [mark(column[i], plain) + Text(" " * (len(name) - 1)) for column, name in zip(groups, names, strict=True)]
        )
        for i in range(len(rows))
    )
    lettered = names[:1] == [_letter(0)]
    notes = tuple(f"{name} = {of_ranks(group)}" for name, group in zip(names, members, strict=True)) if lettered else ()
    return RankBlock(gap.join(names), tuple(cells), notes)


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"Z{index - 25}"


def _count_columns(rows: Sequence[Marks], plain: bool) -> RankBlock:
    order: tuple[Shown, ...] = (ALLOWED, *reversed(Status))

    def cell(marks: Marks) -> Text:
        counts = Counter(status for status in marks if status is not None)
        return Text(" ").join([mark(each, plain) + Text(str(counts[each])) for each in order if counts[each]])

    return RankBlock("ranks", tuple(cell(marks) for marks in rows), ())

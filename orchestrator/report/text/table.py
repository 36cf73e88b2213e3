"""The terminal table, label by rank: from a judgement to lines of text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len
from rich.text import Text

from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.text import figure, fold_ranks, visible
from aclcmp.orchestrator.core.verdicts import Judgement, LabelVerdict, Origin, Status
from aclcmp.orchestrator.report.text.columns import RankBlock, Shown, legend, rank_block
from aclcmp.orchestrator.report.text.fold import Row, RunNames, fold, merge, row_of, with_insides
from aclcmp.orchestrator.terminal.cells import fold_words, shorten

_FOLDS = ((18, 6, 3), (12, 6, 2), (12, 4, 2), (12, 0, 1), (9, 0, 1), (6, 0, 1), (5, 0, 1))
"""Rows of the first task in detail, rows of each further one, and how many have any: from the finest fold on."""
_UNFOLDED = (sys.maxsize,) * 3
_LABEL_ROOM = 28
_LEAST_LABEL_ROOM = 20
"""Where labels have less, the worst rows have no column, then the origins: sentences and files tell them."""
_SHORTEST = 4
"""Where the names of a run's ends would have less, only the first is there."""
_NARROWEST = 60
_GAP = "  "


@dataclass(frozen=True, slots=True)
class TableLine:
    """One line: a heading (no row), or a row whose name has two ends and a count."""

    indent: str
    ends: tuple[str, str]
    count: str
    row: Row | None


def table(judgement: Judgement, ranks: Sequence[int], width: int, plain: bool, most: int | None = 40) -> list[Text]:
    """Return the table in lines of at most `width` (but at least 60) terminal cells; `plain`: in ASCII.

    It is folded until it has at most `most` lines, its header and legend not counted, as far as that goes. None: labels
    share a row only where they are alike.
    """
    width = max(width, _NARROWEST)
    lines = table_lines(judgement, ranks, most)
    rows = [line.row for line in lines if line.row is not None]
    natural = max(cell_len(_name(line, None, plain)) for line in lines)
    tails = [list(_tail(row, plain)) for row in rows]
    header = list(_tail_header(with_own=any(row.own is not None for row in rows)))
    block, label_width, tail_widths = _column_widths(ranks, rows, natural, [header, *tails], width, plain)
    for spare in (1, -1):  # the worst rows, the origins
        if label_width < min(natural, _LEAST_LABEL_ROOM):
            for cells in (header, *tails):
                del cells[spare]
            block, label_width, tail_widths = _column_widths(ranks, rows, natural, [header, *tails], width, plain)
    block_width = _width([Text(block.header), *block.cells])
    texts = [_join([Text("  label"), Text(block.header), *header], [label_width, block_width, *tail_widths])]
    texts[0].stylize("bold")
    rest = iter(zip(block.cells, tails, strict=True))
    for line in lines:
        name = Text(_name(line, label_width, plain), "bold" if line.row is None else "")
        if line.row is None:
            texts.append(name)
            continue
        cell, tail = next(rest)
        texts.append(_join([name, cell, *tail], [label_width, block_width, *tail_widths]))
        if line.row.is_mixed:
            counts = [f"{number:,} {_status_name(status, origin)}" for status, origin, number in line.row.counts]
            words = ["of these", *(f"{each}," for each in counts[:-1]), counts[-1]]
            texts += [Text(each, "dim") for each in fold_words(words, width, f"{line.indent}  ", " ")]
    return texts + _legend(rows, block, width, plain)


def table_lines(judgement: Judgement, ranks: Sequence[int], most: int | None = 40) -> list[TableLine]:
    """Return what the table has, its header and legend apart, folded as for `table`."""
    lines: list[TableLine] = []
    for each in _FOLDS if most is not None else (_UNFOLDED,):
        lines = _lines(judgement, ranks, *each)
        if most is None or len(lines) + sum(line.row is not None and line.row.is_mixed for line in lines) <= most:
            break
    return lines


def _column_widths(
    ranks: Sequence[int], rows: Sequence[Row], natural: int, tails: Sequence[Sequence[Text]], width: int, plain: bool
) -> tuple[RankBlock, int, list[int]]:
    """Return the rank columns, and the widths of labels, which would like to have `natural`, and of the tails."""
    tail_widths = [_width(column) for column in zip(*tails, strict=True)]
    room = width - sum(len(_GAP) + w for w in tail_widths if w) - len(_GAP)
    block = rank_block(ranks, [row.marks for row in rows], room - min(natural, _LABEL_ROOM), plain)
    return block, max(min(natural, room - _width([Text(block.header), *block.cells])), 8), tail_widths


def _width(cells: Iterable[Text]) -> int:
    return max(cell_len(cell.plain) for cell in cells)


def _lines(judgement: Judgement, ranks: Sequence[int], first: int, further: int, tasks_shown: int) -> list[TableLine]:
    """Tasks with something to show get a heading and rows of their own; the others one line, alike ones together."""
    tasks: dict[int, list[LabelVerdict]] = {}
    for label in judgement.labels:
        tasks.setdefault(label.key.task, []).append(label)
    headline = judgement.first_divergence
    named = None if headline is None else headline.key
    lines: list[TableLine] = []
    whole: list[tuple[int, Row]] = []
    detailed = 0
    for task, recorded in tasks.items():
        labels, hidden = with_insides(recorded)
        rows = [row_of(i, label, ranks, hidden.get(label.key, 0), named) for i, label in enumerate(labels)]
        worth = any(not row.quiet or (row.status is Status.DRIFT and row.origin is None) for row in rows)
        if (worth and detailed < tasks_shown) or len(tasks) == 1:
            lines += _whole_lines(whole)
            whole = []
            names = [_label_name(label) for label in labels]
            folded = fold(rows, names, further if detailed else first)
            called = RunNames(names)
            lines.append(TableLine("", (f"task {task}",) * 2, "", None))
            lines += [TableLine("    └ " if row.depth else "  ", called.ends(row), _count(row), row) for row in folded]
            detailed += 1
        else:
            whole.append((task, merge(rows)))
    return lines + _whole_lines(whole)


def _count(row: Row) -> str:
    """Return how many labels a row stands for, where that is not one."""
    inside = f"+{row.hidden:,} low level" if row.hidden else ""
    words = ", ".join(filter(None, (f"{row.size:,}" if row.size > 1 else "", inside)))
    return f"  ({words})" if words else ""


def _whole_lines(whole: list[tuple[int, Row]]) -> list[TableLine]:
    lines = []
    for _, group in groupby(whole, lambda item: (item[1].counts, item[1].marks)):
        tasks, rows = zip(*group, strict=True)
        name = f"task{'s' if len(tasks) > 1 else ''} {fold_ranks(tasks)}"
        size = sum(row.size + row.hidden for row in rows)
        lines.append(TableLine("", (name, name), f"  ({size:,})", merge(rows)))
    return lines


def _label_name(label: LabelVerdict) -> str:
    return label.key.label if label.key.occurrence == 0 else f"{label.key.label} #{label.key.occurrence}"


def _name(line: TableLine, width: int | None, plain: bool) -> str:
    """Return what stands in the label column, the names' middles left out where they do not fit in `width`."""
    ellipsis = "..." if plain else "…"
    first, last = (visible(end, plain) for end in line.ends)
    if width is not None:
        room = width - len(line.indent) - len(line.count)
        if first == last or room < len(ellipsis) + 2 + 2 * _SHORTEST:
            first = last = shorten(first, room, ellipsis)
        elif cell_len(first) + cell_len(last) + len(ellipsis) + 2 > room:
            half = (room - len(ellipsis) - 2) // 2
            first = shorten(first, max(half, room - len(ellipsis) - 2 - cell_len(last)), ellipsis)
            last = shorten(last, room - len(ellipsis) - 2 - cell_len(first), ellipsis)
    indent = line.indent.replace("└", "-") if plain else line.indent
    return indent + (first if first == last else f"{first} {ellipsis} {last}") + line.count


def _tail_header(*, with_own: bool) -> tuple[Text, ...]:
    return Text("rel L2"), Text("worst row"), Text("own L2" if with_own else ""), Text(""), Text("")


def _tail(row: Row, plain: bool) -> tuple[Text, ...]:
    at_least, about = (">=", "~") if plain else ("≥", "≈")
    rel_l2, worst_row = {
        Basis.VALUES: ("", ""),
        Basis.FINGERPRINT: (about, at_least),
        Basis.ROW_FINGERPRINT: (about, at_least),
        Basis.NORMS: (at_least, at_least),
    }[row.basis]
    origin = row.origin.value if row.origin else "bitwise" if row.bitwise else "price" if row.price else ""
    colour = "yellow" if row.origin is Origin.INHERITED else row.status.style
    status = row.status.value
    if row.is_mixed:
        status, origin, colour = "mixed", "", ""
    own = "" if row.own is None else figure(row.own)
    figures = (rel_l2 + figure(row.rel_l2), worst_row + figure(row.worst_row), own)
    return *map(Text, figures), Text(status, colour), Text(origin, colour)


def _status_name(status: Shown, origin: Origin | None) -> str:
    """Return the name of a status and origin where labels are counted."""
    return status.value if origin is None else f"{status.value} ({origin.value})"


def _join(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    padded = []
    for cell, width in zip(cells, widths, strict=True):
        if width:
            padded.append(cell + Text(" " * (width - cell_len(cell.plain))))
    joined = Text(_GAP).join(padded)
    joined.rstrip()
    return joined


def _legend(rows: Sequence[Row], block: RankBlock, width: int, plain: bool) -> list[Text]:
    statuses = {mark for row in rows for mark in row.marks if mark is not None}
    lines = [line for note in block.legend for line in fold_words(note.split(" "), width, "  ", " ")]
    if statuses - {Status.MATCH, Status.DIVERGED}:
        lines += fold_words(legend(statuses, plain), width, "  ")
    return [Text(line, "dim") for line in lines]

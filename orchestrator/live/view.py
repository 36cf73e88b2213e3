"""The view of a running job on a terminal: verdicts by layer and rank so far, and the progress of the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from aclcmp.orchestrator.core.text import count, of_ranks, visible
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.live.progress_text import group_ranks
from aclcmp.orchestrator.live.rank_progress import RankPosition
from aclcmp.orchestrator.report.text.table import table
from aclcmp.orchestrator.terminal.cells import shorten

LINES = 20
"""Together with the bars above they fit into a terminal of 24 lines."""
_MOST_GROUPS = 4
_AROUND_TABLE = 4
"""Its header and legend."""


def view_lines(
    judgement: Judgement | None,
    put_away: Mapping[Status, int],
    positions: Mapping[int, RankPosition],
    ranks: Sequence[int],
    width: int,
    plain: bool,
) -> list[Text]:
    """Return at most 20 lines of at most `width` terminal cells; `plain`: in ASCII.

    `put_away` counts, by status, labels of earlier tasks that are not shown one by one.
    """
    below = _progress(positions, width, plain)
    if put_away:
        counts = ", ".join(f"{put_away[status]:,} {status.value}" for status in Status if status in put_away)
        below.insert(0, Text(f"  {count(sum(put_away.values()), 'label')} of earlier tasks: {counts}", "dim"))
    grid: list[Text] = []
    if judgement is not None and judgement.labels:
        grid = table(judgement, ranks, width, plain, LINES - len(below) - _AROUND_TABLE)[: LINES - len(below)]
    return [_cut(line, width, plain) for line in (*grid, *below)]


def _progress(positions: Mapping[int, RankPosition], width: int, plain: bool) -> list[Text]:
    """Return a line for each group of ranks at the same position; of many groups those with the fewest labels."""
    found = group_ranks(positions)
    lines = []
    for position, ranks in found[:_MOST_GROUPS]:
        head = f"  {of_ranks(ranks)}: {count(position.labels, 'label')}, task {position.task}, last "
        name = shorten(visible(position.last, plain), max(width - cell_len(head), 8), "..." if plain else "…")
        lines.append(Text(head + name, "dim"))
    if len(found) > _MOST_GROUPS:
        rest = sum(len(ranks) for _, ranks in found[_MOST_GROUPS:])
        lines.append(Text(f"  {rest:,} ranks have set more labels", "dim"))
    return lines


def _cut(line: Text, width: int, plain: bool) -> Text:
    if cell_len(line.plain) > width:
        line = line.copy()
        line.truncate(width, overflow="crop" if plain else "ellipsis")
    return line

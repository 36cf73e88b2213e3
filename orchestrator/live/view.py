"""What a terminal shows of a run while its ranks run: layer by rank as far as it is compared, and how far ranks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from aclcmp.orchestrator.core.text import count, of_ranks, visible
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.live.progress_text import groups
from aclcmp.orchestrator.live.rank_progress import Stand
from aclcmp.orchestrator.report.text.table import table
from aclcmp.orchestrator.terminal.cells import shorten

LINES = 20
"""With the bars above them they are not more than a terminal of 24 lines has."""
_MOST_GROUPS = 4
_AROUND_TABLE = 4
"""Its header and legend."""


def lines(
    judgement: Judgement | None,
    put_away: Mapping[Status, int],
    stands: Mapping[int, Stand],
    ranks: Sequence[int],
    width: int,
    plain: bool,
) -> list[Text]:
    """Return at most 20 lines of at most `width` terminal cells; `plain`: in ASCII.

    `put_away` are labels of earlier tasks that are not shown one by one, by status.
    """
    below = _progress(stands, width, plain)
    if put_away:
        told = ", ".join(f"{put_away[status]:,} {status.value}" for status in Status if status in put_away)
        below.insert(0, Text(f"  {count(sum(put_away.values()), 'label')} of earlier tasks: {told}", "dim"))
    shown: list[Text] = []
    if judgement is not None and judgement.labels:
        shown = table(judgement, ranks, width, plain, LINES - len(below) - _AROUND_TABLE)[: LINES - len(below)]
    return [_cut(line, width, plain) for line in (*shown, *below)]


def _progress(stands: Mapping[int, Stand], width: int, plain: bool) -> list[Text]:
    """A line for each group of ranks that have come equally far; of many groups those with the fewest labels."""
    found = groups(stands)
    told = []
    for stand, ranks in found[:_MOST_GROUPS]:
        head = f"  {of_ranks(ranks)}: {count(stand.labels, 'label')}, task {stand.task}, last "
        name = shorten(visible(stand.last, plain), max(width - cell_len(head), 8), "..." if plain else "…")
        told.append(Text(head + name, "dim"))
    if len(found) > _MOST_GROUPS:
        rest = sum(len(ranks) for _, ranks in found[_MOST_GROUPS:])
        told.append(Text(f"  {rest:,} ranks have set more labels", "dim"))
    return told


def _cut(line: Text, width: int, plain: bool) -> Text:
    if cell_len(line.plain) > width:
        line = line.copy()
        line.truncate(width, overflow="crop" if plain else "ellipsis")
    return line

"""Text in the cells of a terminal."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """Return `text` in at most `width` terminal cells, its middle left out."""
    if cell_len(text) <= max(width, 0):
        return text
    room = width - cell_len(ellipsis)
    if room < 2:
        return chop_cells(text, max(width, 1))[0]
    head = chop_cells(text, room // 2)[0]
    tail = chop_cells(text[::-1], room - cell_len(head))[0][::-1]
    return head + ellipsis + tail

"""Text in the cells of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """Return `text` in at most `width` terminal cells, its middle left out. No number is cut in two."""
    if cell_len(text) <= max(width, 0):
        return text
    room = width - cell_len(ellipsis)
    if room < 2:
        return chop_cells(text, max(width, 1))[0]
    head = chop_cells(text, room // 2)[0]
    tail = chop_cells(text[::-1], room - cell_len(head))[0][::-1]
    if text[len(head)].isdigit():
        head = head.rstrip("0123456789") or head
    if text[-len(tail) - 1].isdigit():
        tail = tail.lstrip("0123456789") or tail
    return head + ellipsis + tail


def fold_words(words: Sequence[str], width: int, indent: str, gap: str = "  ") -> Iterator[str]:
    """Yield lines of at most `width` cells with words, as many as have room; one that is longer has its own line."""
    line = ""
    for word in words:
        longer = f"{line}{gap}{word}" if line else indent + word
        if line and cell_len(longer) > width:
            yield line
            longer = indent + word
        line = longer
    if line:
        yield line

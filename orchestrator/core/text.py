"""Small texts for people: folded ranks, safe and shortened names, counts, figures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that steer a terminal, reorder text or cannot be seen."""
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_COLOURS = re.compile(rf"({_COLOUR.pattern})")
_MOST_RUNS = 8
_MOST_LINES = 3


def shown_path(path: str | Path) -> str:
    """Return a path, or one with a line behind it, as it is called from the working directory where it lies below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)


def visible(text: str, plain: bool = False) -> str:
    """Return one line of `text` with control, format and unassigned characters as escapes: it steers no terminal.

    `plain`: characters beyond ASCII become escapes too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN or (plain and c > "~") else c for c in text)


def visible_lines(text: str) -> str:
    """Return the same of text in lines: what ends lines, and tabs, stay."""
    if text.replace("\n", " ").replace("\t", " ").isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(c if c in "\n\t" else visible(c) for c in text)


def keep_colours(line: str) -> str:
    """Return a line of a rank's output with its colours (SGR sequences) and nothing else that steers a terminal."""
    return "".join(part if _COLOUR.fullmatch(part) else visible_lines(part) for part in _COLOURS.split(line))


def strip_colours(line: str) -> str:
    """Return a line of a rank's output for what is no terminal: without its colours, the rest as escapes."""
    return visible_lines(_COLOUR.sub("", line))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def fold_ranks(ranks: Iterable[int]) -> str:
    """Return numbers, sorted and with runs folded: "0-3, 5"."""
    return ", ".join(_runs(ranks))


def of_ranks(ranks: Iterable[int]) -> str:
    """Return "rank 5" or "ranks 0-3, 5"; of many runs only the first, and the number of ranks."""
    found = sorted(set(ranks))
    runs = _runs(found)
    if len(runs) > _MOST_RUNS:
        runs = [*runs[:_MOST_RUNS], f"... ({len(found):,} ranks)"]
    return f"rank{'s' if len(found) != 1 else ''} {', '.join(runs)}"


def _runs(ranks: Iterable[int]) -> list[str]:
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return [str(a) if a == b else f"{a}-{b}" for a, b in runs]


def count(number: int, noun: str) -> str:
    """Return "1 label" or "1,344 labels"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def figure(value: float | None) -> str:
    """Return an error as "4.2e-01", "0", "inf" or, where there is none, ""."""
    if value is None or value != value:
        return ""
    return "0" if value == 0 else f"{value:.1e}"


def ranks_text(ranks: Sequence[int]) -> str:
    """Name ranks: "rank 3", "ranks 0, 1", of many the first four and their number."""
    several = "s" if len(ranks) != 1 else ""
    named = ", ".join(map(str, ranks[:4])) + (f" ... ({len(ranks)} ranks)" if len(ranks) > 4 else "")
    return f"rank{several} {named}"


def note_on_unused_rules(lines: Sequence[int], file: str) -> list[str]:
    """Say which rules of a file, by their lines, no label follows: most likely they are misspelt."""
    more = f" and {len(lines) - _MOST_LINES:,} more" if len(lines) > _MOST_LINES else ""
    named = ", ".join(f"line {line}" for line in lines[:_MOST_LINES])
    return [f"no label follows these rules of {file}: {named}{more}"] if lines else []

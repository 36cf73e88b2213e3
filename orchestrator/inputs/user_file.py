"""Read files that people write, unless they are far too large to be such files."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError


def read_user_file(path: Path, most: int, what: str, give: str) -> bytes:
    """Read a file of at most `most` bytes. Raises UsageError, which says to `give` one, for any other."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give {give}") from None
    if len(content) > most:
        raise UsageError(f"{path} has more than {most >> 20} MiB; that is no {what}")
    return content


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about an unknown name: the known one that was probably meant, or all of them."""
    return nearest(name, known) or f"; known are {', '.join(known)}"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the same where a known name is near; "" where none is."""
    close = get_close_matches(name, known, 1) or get_close_matches(name.replace("-", "_"), known, 1)
    return f"; did you mean {close[0]}?" if close else ""

"""A file that a person wrote, read whole unless it is far too large to be one."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError


def read_user_file(path: Path, most: int, what: str, give: str) -> bytes:
    """Read a file of at most so many bytes. Raises UsageError: it is no `what`, or cannot be read, so `give` one."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give {give}") from None
    if len(content) > most:
        raise UsageError(f"{path} has more than {most >> 20} MiB; that is no {what}")
    return content


def meant(name: str, known: Sequence[str]) -> str:
    """Say which of the known names may have been meant, or what they are; it follows on a sentence without its end."""
    close = get_close_matches(name, known, 1) or get_close_matches(name.replace("-", "_"), known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"

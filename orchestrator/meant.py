"""What a misspelt name was probably meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def meant(name: str, known: Sequence[str]) -> str:
    """Say which of the known names may have been meant, or what they are; it follows on a sentence without its end."""
    close = get_close_matches(name, known, 1) or get_close_matches(name.replace("-", "_"), known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"

"""What a watch says on stderr: each line once, and what every rank would say alike only on the first of its host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from aclcmp.labeling.identity import rank_identity

_SHOWN = 5

_told: set[str] = set()


def tell(text: str, kind: str = "") -> None:
    """Say one line on stderr, once in a process; of one kind only the first."""
    if (kind or text) not in _told:
        _told.add(kind or text)
        with suppress(Exception):  # a daemon has no stderr, or a closed one; a notebook's may be anything
            sys.stderr.write(f"aclcmp: {text}\n")


def tell_here(text: str) -> None:
    """Say what other ranks say too: on the first of this host."""
    if rank_identity().local_rank == 0:
        tell(text)


def few(names: Sequence[str]) -> str:
    """Return the first few of the names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

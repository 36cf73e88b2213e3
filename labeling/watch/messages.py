"""Messages of a watch on stderr. Each is printed once; one that all ranks share, by the first rank of each host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from aclcmp.labeling.identity import rank_identity

_SHOWN = 5

_printed: set[str] = set()


def print_once(text: str, kind: str = "") -> None:
    """Print a line to stderr once per process; of several lines of one `kind` only the first."""
    if (kind or text) not in _printed:
        _printed.add(kind or text)
        with suppress(Exception):  # a daemon has no stderr, or a closed one; a notebook's may be anything
            sys.stderr.write(f"aclcmp: {text}\n")


def print_once_per_host(text: str) -> None:
    """Print a line that other ranks print too: only on the first rank of this host."""
    if rank_identity().local_rank == 0:
        print_once(text)


def abbreviate(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

"""This process's stdout and stderr: nothing that goes out through them steers a terminal, and they may be gone.

Texts come from runs, dumps and other hosts: names, log lines, error texts. What is written to a stream is escaped here,
and what rich prints is in `report/terminal.py`: once each, whoever prints it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from aclcmp.orchestrator.words import visible_lines


class HarmlessStream:
    """A text stream in front of another one, on which control characters become escapes."""

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream
        """Where rich writes: its own control characters are meant."""

    def write(self, text: str) -> int:
        """Write text; return the length of what was given."""
        self.unfiltered.write(visible_lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write pieces of text."""
        self.unfiltered.writelines(map(visible_lines, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


def unfiltered(stream: TextIO) -> TextIO:
    """Return the stream behind a harmless one, or the stream itself."""
    return stream.unfiltered if isinstance(stream, HarmlessStream) else stream


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Let stdout and stderr, which may be closed, be harmless; all that Python writes goes through them."""
    open_what_is_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, HarmlessStream(unfiltered(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def open_what_is_closed() -> None:
    """Let a closed stdout or stderr (`>&-`) lead nowhere: else the next file that is opened would be in its place."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            to_nowhere(number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def to_nowhere(descriptor: int) -> None:
    """Let what is written to a descriptor be lost."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)

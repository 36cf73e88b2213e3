"""Safe standard output and error: control characters do not reach a terminal, and the streams may be closed.

Texts come from runs, dumps and other hosts: names, log lines, errors. Text that is written to a stream is escaped here,
text that rich prints in `console.py`, so that each is escaped once.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from aclcmp.orchestrator.core.text import visible_lines


class EnduringStream:
    """Text stream that writes to another one. Output to a terminal that is gone is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; return its length."""
        with self._survive_lost_terminal():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write pieces of text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream behind."""
        with self._survive_lost_terminal():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _survive_lost_terminal(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO or not stat.S_ISCHR(os.fstat(self._stream.fileno()).st_mode):
                raise
            to_nowhere(self._stream.fileno())


class HarmlessStream(EnduringStream):
    """Enduring stream that writes control characters as escapes."""

    def write(self, text: str) -> int:
        """Write text; return its length."""
        super().write(visible_lines(text))
        return len(text)


def for_rich(stream: TextIO) -> TextIO:
    """Return a stream for rich, which passes on rich's own control characters."""
    while isinstance(stream, EnduringStream):
        stream = stream._stream
    return cast("TextIO", EnduringStream(stream))


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Replace stdout and stderr, which may be closed, by harmless streams; all that Python writes goes through them."""
    open_closed_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", HarmlessStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            try:
                stream.flush()
            except BrokenPipeError:  # what is still buffered would change the exit code to 120
                to_nowhere(stream.fileno())


def open_closed_streams() -> None:
    """Open a closed stdout or stderr (`>&-`) on /dev/null: else the next file that is opened would take its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            to_nowhere(number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def to_nowhere(descriptor: int) -> None:
    """Redirect a descriptor to /dev/null."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)

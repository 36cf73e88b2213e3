"""Standard output and error of this process: nothing that they print can steer a terminal, and they may be closed.

Texts come from runs, dumps and other hosts: names, log lines, error texts. What is written to a stream is escaped here,
and what rich prints in `console.py`: once each, whoever prints it.
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
    """A text stream in front of another one. Where that is a terminal which is gone, what is written is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; return the length of what was given."""
        with self._outliving():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write pieces of text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write out what is held."""
        with self._outliving():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _outliving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO or not stat.S_ISCHR(os.fstat(self._stream.fileno()).st_mode):
                raise
            to_nowhere(self._stream.fileno())


class HarmlessStream(EnduringStream):
    """The same, on which control characters become escapes."""

    def write(self, text: str) -> int:
        """Write text; return the length of what was given."""
        super().write(visible_lines(text))
        return len(text)


def for_rich(stream: TextIO) -> TextIO:
    """Return a stream on which rich's own control characters are what they are."""
    while isinstance(stream, EnduringStream):
        stream = stream._stream
    return cast("TextIO", EnduringStream(stream))


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Let stdout and stderr, which may be closed, be harmless; all that Python writes goes through them."""
    open_what_is_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", HarmlessStream(stream)) for stream in before)
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

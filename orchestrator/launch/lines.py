"""A rank's output as lines for people: bytes in, at most so much text out. Only the log file has everything."""

from collections import deque

MAX_LINE = 8 << 10
"""Bytes; a longer line is shown in pieces."""
MAX_WAITING = 256 << 10
"""Bytes that wait to be taken; beyond it the oldest lines are left out."""


class LiveLines:
    """Cut a byte stream into lines, bounded in memory however fast or strange the stream is."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._hidden = 0
        self._partial = b""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def feed(self, chunk: bytes) -> None:
        """Add output as it comes, cut anywhere."""
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            self._add(line)
        if len(self._partial) > MAX_LINE:
            self._partial = self._partial.rpartition(b"\r")[2]  # a progress bar that never ends its line
        if len(self._partial) > MAX_LINE:
            self._add(self._partial)
            self._partial = b""

    def finish(self) -> None:
        """The stream has ended: what has no newline is a line too."""
        if self._partial:
            self._add(self._partial)
            self._partial = b""

    def take(self) -> tuple[tuple[str, ...], int]:
        """The waiting lines, and how many before them were left out."""
        lines = tuple(line.decode(errors="replace") for line in self._waiting)
        hidden, self._hidden, self._size = self._hidden, 0, 0
        self._waiting.clear()
        return lines, hidden

    def _add(self, line: bytes) -> None:
        line = line.rstrip(b"\r").rpartition(b"\r")[2]  # what a terminal would show in the end
        for start in range(0, max(1, len(line)), MAX_LINE):
            piece = line[start : start + MAX_LINE]
            self._waiting.append(piece)
            self._size += len(piece) + 1
        while self._size > MAX_WAITING:
            self._size -= len(self._waiting.popleft()) + 1
            self._hidden += 1

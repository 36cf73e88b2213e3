"""Whether the cluster's head node still answers, asked every second from a thread of its own. Knows no Ray.

Without its head a driver of Ray goes on for 60 s and is then ended by Ray, with all that it had not written yet.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

PERIOD = 1.0
LOST_SECONDS = 12.0
"""Without an answer for so long the head counts as lost; one that Ray's fault tolerance restarts needs some."""
_TRY_SECONDS = 5.0
_MOST_SECONDS = PERIOD + _TRY_SECONDS + 1.0
"""A try that took longer counts for so much: a machine that slept, or stood still, did not ask all the time."""


class Answers:
    """For how long every try has failed. Pure: the clock is given."""

    def __init__(self, now: float) -> None:
        self.silent = 0.0
        """Seconds without an answer."""
        self._tried = now

    def tried(self, now: float, *, answered: bool) -> None:
        """A try has ended."""
        self.silent = 0.0 if answered else self.silent + min(now - self._tried, _MOST_SECONDS)
        self._tried = now


class HeadWatch:
    """Asks `address` (host:port of the head's GCS) for a connection until `close`."""

    def __init__(self, address: str, lost_after: float = LOST_SECONDS) -> None:
        self.address = address
        self.lost = False
        """It has not answered for too long; this stays so."""
        self._lost_after = lost_after
        self._then: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="head-watch", daemon=True).start()

    @property
    def words(self) -> str:
        """What is wrong, in words for people."""
        return f"the cluster's head ({self.address}) has not answered for {self._lost_after:g} s"

    def when_lost(self, then: Callable[[], object] | None) -> None:
        """Have this called in the watching thread when the head is lost, at once if it is. None: nothing any more."""
        with self._lock:
            self._then = then
            if self.lost and then is not None:
                then()

    def close(self) -> None:
        """Ask no more."""
        self._closing.set()

    def _watch(self) -> None:
        host, _, port = self.address.rpartition(":")
        answers = Answers(time.monotonic())
        while not self._closing.wait(PERIOD):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_TRY_SECONDS).close()
                answers.tried(time.monotonic(), answered=True)
            except OSError:
                answers.tried(time.monotonic(), answered=False)
            if answers.silent > self._lost_after:
                break
        else:
            return
        with self._lock:
            self.lost = True
            if self._then is not None and not self._closing.is_set():
                self._then()

"""Whether what a driver of Ray cannot do without is there, asked every second from a thread of its own. Knows no Ray.

That is the cluster's head node, without which Ray ends the driver after 60 s, with all that it had not written yet; and
Ray's process on the driver's own host (raylet), without which no call is answered.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

PERIOD = 1.0
LOST_SECONDS = 12.0
"""Without an answer for so long the head counts as lost; one that Ray's fault tolerance restarts needs some."""
HERE_GONE = "Ray's process on this host (raylet) is gone, as when it is killed or the memory is full"
_REFUSALS = 2
"""Ray never starts a raylet again: one that twice refuses a connection is gone."""
_TRY_SECONDS = 5.0
_MOST_SECONDS = PERIOD + _TRY_SECONDS + 1.0
"""A try that took longer counts for so much: a machine that slept, or stood still, did not ask all the time."""


class FailureTimer:
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
    """Asks `address` (host:port of the head's GCS) and `here` (of this host's raylet) for connections until `close`."""

    def __init__(self, address: str, here: str = "", lost_after: float = LOST_SECONDS) -> None:
        self.address = address
        self.lost = False
        """No further call into Ray will do; this stays so."""
        self.words = ""
        """What is lost, in words for people; "" as long as nothing is."""
        self._here = here
        self._lost_after = lost_after
        self._then: Callable[[], object] | None = None
        self._lock = threading.RLock()
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="head-watch", daemon=True).start()

    def on_loss(self, then: Callable[[], object] | None) -> None:
        """Have this called in the thread that finds the loss, at once if it is known. None: nothing any more."""
        with self._lock:
            self._then = then
            if self.lost and then is not None:
                then()

    def lose(self, words: str) -> None:
        """It is lost, as `words` say: by this watch, or by somebody else who found out."""
        with self._lock:
            if self.lost or self._closing.is_set():
                return
            self.words, self.lost = words, True
            if self._then is not None:
                self._then()

    def close(self) -> None:
        """Ask no more."""
        self._closing.set()

    def _watch(self) -> None:
        answers, refusals = FailureTimer(time.monotonic()), 0
        while not self.lost and not self._closing.wait(PERIOD):
            answers.tried(time.monotonic(), answered=bool(_connects(self.address)))
            refusals = refusals + 1 if self._here and _connects(self._here) is False else 0
            if answers.silent > self._lost_after:
                self.lose(f"the cluster's head ({self.address}) has not answered for {self._lost_after:g} s")
            elif refusals >= _REFUSALS:
                self.lose(HERE_GONE)


def _connects(address: str) -> bool | None:
    """Whether somebody listens at host:port; None: no answer either way."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TRY_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True

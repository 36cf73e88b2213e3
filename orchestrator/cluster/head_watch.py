"""Check every second, from a separate thread, that what Ray's driver depends on still answers. Does not use Ray.

The driver depends on the cluster's head node, without which Ray ends the driver after 60 s, before it can write its
results, and on Ray's process on the driver's own host (raylet), without which no call is answered.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

PERIOD = 1.0
LOST_SECONDS = 12.0
"""Time without an answer after which the head counts as lost; a head that Ray's fault tolerance restarts needs some."""
HERE_GONE = "Ray's process on this host (raylet) is gone, as when it is killed or the memory is full"
_REFUSALS = 2
"""Ray never restarts a raylet: one that refuses a connection twice is gone."""
_TRY_SECONDS = 5.0
_MOST_SECONDS = PERIOD + _TRY_SECONDS + 1.0
"""Most that one try counts: a machine that slept or stood still did not ask all the time."""


class FailureTimer:
    """Time for which every try has failed. Pure: callers pass the time."""

    def __init__(self, now: float) -> None:
        self.silent = 0.0
        """Seconds without an answer."""
        self._last_try = now

    def add(self, now: float, *, answered: bool) -> None:
        """Note that a try has ended."""
        self.silent = 0.0 if answered else self.silent + min(now - self._last_try, _MOST_SECONDS)
        self._last_try = now


class HeadWatch:
    """Watch that connects to `address` (host:port of the head's GCS) and `here` (this host's raylet) until `close`."""

    def __init__(self, address: str, here: str = "", lost_after: float = LOST_SECONDS) -> None:
        self.address = address
        self.lost = False
        """True from the loss on: no further call into Ray is possible."""
        self.words = ""
        """Description of the loss for people; "" as long as nothing is lost."""
        self._here = here
        self._lost_after = lost_after
        self._callback: Callable[[], object] | None = None
        self._lock = threading.RLock()
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="head-watch", daemon=True).start()

    def on_loss(self, callback: Callable[[], object] | None) -> None:
        """Set the function to call in the thread that finds the loss, or at once after a loss. None: call nothing."""
        with self._lock:
            self._callback = callback
            if self.lost and callback is not None:
                callback()

    def lose(self, words: str) -> None:
        """Declare the loss, described by `words`. Called by this watch, and by others that find a loss."""
        with self._lock:
            if self.lost or self._closing.is_set():
                return
            self.words, self.lost = words, True
            if self._callback is not None:
                self._callback()

    def close(self) -> None:
        """End the watch."""
        self._closing.set()

    def _watch(self) -> None:
        failures, refusals = FailureTimer(time.monotonic()), 0
        while not self.lost and not self._closing.wait(PERIOD):
            failures.add(time.monotonic(), answered=bool(_connects(self.address)))
            refusals = refusals + 1 if self._here and _connects(self._here) is False else 0
            if failures.silent > self._lost_after:
                self.lose(f"the cluster's head ({self.address}) has not answered for {self._lost_after:g} s")
            elif refusals >= _REFUSALS:
                self.lose(HERE_GONE)


def _connects(address: str) -> bool | None:
    """Tell whether a process listens at host:port; None if there is no answer."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TRY_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True

"""Ctrl-C, SIGTERM or SIGHUP that comes at a bad moment takes effect at the next good one, as KeyboardInterrupt.

A KeyboardInterrupt is raised wherever the main thread is. Where that is an import, its lock may be kept for good, and
another thread (Ray starts in one) waits for it for ever. Where it is a callback of a compiler, of a weak reference or a
`__del__`, Python prints it and goes on.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command early."""
_PERIOD = 0.05
_FILES = frozenset({"<frozen importlib._bootstrap>", weakref.__file__})
"""Of imports, and of callbacks of weak references."""

_pending = False
_holding = 0
_hung_up = False


def defer_interrupts() -> None:
    """From now on SIGINT in an import, a `__del__`, a callback of a weak reference or `held` waits until that is over.

    SIGTERM, by which jobs are stopped, and SIGHUP, which comes when a terminal goes, are the same: a comparison reports
    what it has. Call it in the main thread. A signal that is ignored (nohup) or handled already stays so.
    """
    for number in ENDING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupt)


def heard_already(number: int) -> bool:
    """Whether this is one more SIGHUP: when a terminal goes, the kernel sends one and the shell another."""
    global _hung_up
    before = _hung_up
    _hung_up = before or number == signal.SIGHUP
    return before and number == signal.SIGHUP


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if one is due: a good moment, before something long begins."""
    global _pending
    if _pending:
        _pending = False
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Hold them back while something runs that it would break, or that would swallow it."""
    global _holding
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    check_interrupt()


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
    if not _pending and heard_already(number):
        return
    if not _holding and not _at_a_bad_moment(frame):
        _pending = False
        signal.default_int_handler(number, frame)
    _pending = True
    again = threading.Timer(_PERIOD, _try_again, (number,))
    again.daemon = True
    again.start()


def _try_again(number: int) -> None:
    main = threading.main_thread().ident
    if _pending and main is not None:
        signal.pthread_kill(main, number)


def _at_a_bad_moment(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in _FILES or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False

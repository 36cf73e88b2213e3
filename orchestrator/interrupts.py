"""Ctrl-C or SIGTERM that comes at a bad moment takes effect at the next good one, as KeyboardInterrupt.

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

_PERIOD = 0.05
_FILES = frozenset({"<frozen importlib._bootstrap>", weakref.__file__})
"""Of imports, and of callbacks of weak references."""

_pending = False
_holding = 0


def defer_interrupts() -> None:
    """From now on SIGINT in an import, a `__del__`, a callback of a weak reference or `held` waits until that is over.

    SIGTERM, by which jobs are stopped, is the same: a comparison reports what it has. Call it in the main thread. A
    signal that is ignored or handled already stays so.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:
            signal.signal(number, _interrupt)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if one is due: a good moment, before something long begins."""
    global _pending
    if _pending:
        _pending = False
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Hold both back while something runs that it would break, or that would swallow it."""
    global _holding
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    check_interrupt()


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
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

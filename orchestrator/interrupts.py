"""Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, where it could do harm only a moment later.

A KeyboardInterrupt is raised wherever the main thread is. Where that is an import, its lock may be kept for good, and
another thread (Ray starts in one) waits for it for ever. Where it is a callback of a weak reference or a `__del__`,
Python prints it and goes on; where it is one of pydantic's validation, it is lost. Where it leaves code that `eval` or
`exec` took as a string, Python notes it, and under `python -m` ends by SIGINT later, whatever the exit code.
"""

from __future__ import annotations

import signal
import threading
import weakref
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command early."""
_PERIOD = 0.01
_UNSAFE_FILES = frozenset({"<frozen importlib._bootstrap>", weakref.__file__})
"""Source files of frames in which no exception may be raised: imports, and callbacks of weak references."""
_UNSAFE_PACKAGES = frozenset({"pydantic"})
"""Packages of such frames: callbacks of their compiled code may be under way."""
_STRING = "<string>"
"""In place of the source file where the code was a string."""

_pending = False
_hung_up = False


def defer_interrupts() -> None:
    """Let SIGINT wait until an import, a `__del__` or a callback of a weak reference is over.

    SIGTERM, by which jobs are stopped, and SIGHUP, which comes when a terminal is closed, are treated alike: a
    comparison reports what it has. Call it in the main thread. A signal that is ignored (nohup) or has a handler of its
    own already stays so.
    """
    for number in ENDING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupt)


def ignore_interrupts() -> None:
    """Ignore the signals from now on: all is done, and the exit code must stand while the interpreter ends.

    Python itself restores their default action then, by which a late Ctrl-C would end the process.
    """
    for number in ENDING:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_IGN)


def is_second_hangup(number: int) -> bool:
    """Check whether a signal is the second SIGHUP: of a closed terminal the kernel and the shell send one each."""
    global _hung_up
    before = _hung_up
    _hung_up = before or number == signal.SIGHUP
    return before and number == signal.SIGHUP


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if an interrupt was held back. Call it before something long begins."""
    global _pending
    if _pending:
        _pending = False
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
    if not _pending and is_second_hangup(number):
        return
    if not _at_a_bad_moment(frame):
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
        if frame.f_code.co_filename in _UNSAFE_FILES or frame.f_code.co_name == "__del__":
            return True
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _UNSAFE_PACKAGES:
            return True
        if frame.f_code.co_filename == _STRING and frame.f_back is not None:  # the outermost one is `python -c`
            return True
        frame = frame.f_back
    return False

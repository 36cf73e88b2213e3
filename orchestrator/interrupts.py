"""Ctrl-C that never breaks an import off."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_PATIENCE = 0.05
_IMPORTING = "<frozen importlib._bootstrap>"


def spare_imports() -> None:
    """From now on Ctrl-C that comes during an import takes effect when the import is done, if other threads run.

    An import that a KeyboardInterrupt breaks off may keep its lock for good, and then another thread (Ray starts in
    one) waits for that lock for ever. Call it in the main thread. Where SIGINT is ignored or handled already, it stays.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if threading.active_count() == 1 or not _within_import(frame):
        signal.default_int_handler(number, frame)
    main = threading.main_thread().ident
    assert main is not None, "this runs in the main thread"
    again = threading.Timer(_PATIENCE, signal.pthread_kill, (main, number))
    again.daemon = True
    again.start()


def _within_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False

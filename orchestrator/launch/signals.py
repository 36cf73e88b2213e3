"""Handle Ctrl-C, SIGTERM and SIGHUP while ranks run."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from aclcmp.orchestrator.interrupts import ENDING, is_second_hangup


class Interrupts:
    """Context in which the first signal that ends a run is only noted; the second raises KeyboardInterrupt.

    A SIGHUP that is ignored (nohup) stays ignored. The first signal sets a flag, because an exception could interrupt a
    call into Ray and lose its answer. Signals reach the main thread only; in other threads the context does nothing.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        """The first signal, or None."""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if is_second_hangup(number):
            return
        if self.caught is not None:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number)

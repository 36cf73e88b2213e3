"""Processes that tests look for, wait for and end. A process may end at any moment, and is then passed over."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PATIENCE = 600.0
"""Seconds within which whatever a test waits for must come, also on a busy machine."""


def living(
    chosen: Callable[[psutil.Process], object], among: Iterable[psutil.Process] | None = None
) -> list[psutil.Process]:
    """Return the living processes for which `chosen` is true, by default of all on this machine."""
    found = []
    for process in psutil.process_iter() if among is None else among:
        with suppress(OSError, psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and chosen(process):
                found.append(process)
    return found


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Return the processes below one, by default below this one."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def kill(processes: Iterable[psutil.Process], number: int = signal.SIGKILL) -> None:
    """Send a signal to processes, SIGKILL by default."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def command_of(process: psutil.Process) -> str:
    """Return a process's command line, or the title that it gave itself."""
    return " ".join(process.cmdline())


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return all other living processes with `mark` in their environment."""
    return living(
        lambda each: each.pid != os.getpid() and mark.encode() in Path(f"/proc/{each.pid}/environ").read_bytes()
    )


def wait_until(condition: Callable[[], object], words: Callable[[], object] = str, seconds: float = PATIENCE) -> None:
    """Wait until `condition()` is true; fail with `words()` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {words()}")
        time.sleep(0.1)


def catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for this signal."""
    found = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> number - 1 & 1)


def as_in_a_terminal() -> None:
    """Restore SIGINT and SIGHUP to their defaults, as a `preexec_fn`.

    Background jobs of a shell ignore SIGINT, and processes under nohup ignore SIGHUP; a test run may be either.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def memory_growth(processes: Iterable[psutil.Process], pause: float = 0.001) -> Iterator[list[int]]:
    """Sample memory while something runs: after it the list has one or more samples of what the largest grew by."""
    before = {each: each.memory_info().rss for each in processes}
    samples: list[int] = []
    done = threading.Event()

    def sample() -> None:
        over = False
        while not over:
            over = done.wait(pause)
            samples.append(max(each.memory_info().rss - rss for each, rss in before.items()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        done.set()
        sampler.join()

"""Set up what commands need before their stages: the terminal, and a cluster that opens while other work is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.interrupts import check_interrupt

if TYPE_CHECKING:
    from rich.console import Console

    from aclcmp.orchestrator.terminal.screen import Screen

_SLOW = 2.0
"""Seconds after which progress is shown."""


@contextmanager
def open_cluster(
    address: str | None, screen: Screen, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Cluster]:
    """Open a cluster, which takes seconds, and meanwhile do other work; yield the cluster."""
    check_interrupt()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(Cluster.open, address)
        try:
            with screen.waiting(f"joining Ray at {address}" if address else "starting a local Ray"):
                meanwhile()
                cluster = opening.result()
        except BaseException:
            if opening.exception() is None:
                opening.result().close()
            raise
    with cluster:
        yield cluster


@contextmanager
def slow_steps(text: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each step: on a terminal it shows the progress of slow work."""
    from rich.progress import Progress

    from aclcmp.orchestrator.terminal.console import report_console

    console = report_console(sys.stderr)
    bars = Progress(console=console, transient=True, disable=not console.is_terminal)
    bar = bars.add_task(text, total=total)
    start = time.monotonic()

    def step() -> None:
        bars.advance(bar)
        if time.monotonic() - start > _SLOW:
            bars.start()

    try:
        yield step
    finally:
        bars.stop()


def terminal(as_json: bool) -> tuple[Console, Screen]:
    """Return the console for people, which is stderr where stdout is for JSON, and the screen on it."""
    from aclcmp.orchestrator.terminal.console import report_console
    from aclcmp.orchestrator.terminal.screen import Screen

    console = report_console(sys.stderr if as_json else sys.stdout)
    return console, Screen(console)

"""The state that a followed run and the thread that follows it share, and the screen that both use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.text import Text

from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.core.job import Placement, StopAt
from aclcmp.orchestrator.launch.follow_ranks import Watcher
from aclcmp.orchestrator.live.progress_text import StallTimer
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions


class LiveScreen(Watcher, Protocol):
    """A screen: a Watcher that can also show lines that change."""

    @property
    def room(self) -> tuple[int, bool] | None:
        """Width of the terminal, and whether it shows only ASCII; None without a terminal."""

    def show(self, below: Sequence[Text]) -> None:
        """Show these lines below the bars from now on."""


class OverError(Exception):
    """The ranks have ended, or Ray's head is lost: the thread has nothing more to do."""


@dataclass(slots=True)
class LiveState:
    """The state of one followed run. Each field is written by one side only, or is safe to write from both."""

    screen: LiveScreen
    terms: JudgingOptions | None
    """How to judge; None if nothing is compared."""
    stop_at: StopAt
    lost: Callable[[], bool]
    """Whether Ray is lost, so that no call into it can succeed."""
    stall_timer: StallTimer
    known: ResultCache = field(default_factory=ResultCache)
    """Results of the comparisons, written by the thread."""
    ranks: Mapping[int, Placement] = field(default_factory=dict)
    running: frozenset[int] = frozenset()
    ended: deque[int] = field(default_factory=deque)
    """Ranks that have ended and that the thread has not taken note of yet."""
    over: threading.Event = field(default_factory=threading.Event)
    stopped: str = ""
    """The reason to end the run now, written by the thread; "" to go on."""
    standing: str = ""
    """The positions of the running ranks in words, written by the thread; "" while they are not known."""

    def check(self) -> None:
        """Raise OverError when the run is over or Ray is lost."""
        if self.over.is_set() or self.lost():
            raise OverError

"""What a followed run and the thread that follows it tell each other, and what both need of the screen."""

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
from aclcmp.orchestrator.live.progress_text import Quiet
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions


class Face(Watcher, Protocol):
    """The screen: a Watcher that can also show lines that change."""

    @property
    def room(self) -> tuple[int, bool] | None:
        """Width of the terminal and whether it knows ASCII alone; None where there is none."""

    def show(self, below: Sequence[Text]) -> None:
        """Show these lines below the bars from now on."""


class OverError(Exception):
    """The ranks have ended, or Ray's head has: the thread has nothing more to do."""


@dataclass(slots=True)
class Shared:
    """One followed run. Each field is written on one side only, or is safe to be written on both."""

    screen: Face
    terms: JudgingOptions | None
    """How to judge; None: nothing is compared."""
    stop_at: StopAt
    lost: Callable[[], bool]
    """Whether no call into Ray will do any more."""
    quiet: Quiet
    known: ResultCache = field(default_factory=ResultCache)
    """What was compared, by the thread."""
    ranks: Mapping[int, Placement] = field(default_factory=dict)
    running: frozenset[int] = frozenset()
    ended: deque[int] = field(default_factory=deque)
    """Ranks that have ended and that the thread has not heard of."""
    over: threading.Event = field(default_factory=threading.Event)
    stopped: str = ""
    """Why the run is to end now, in words, said by the thread; "" to go on."""
    standing: str = ""
    """Where the ranks that run stand, in words, said by the thread; "" while that is not known."""

    def check(self) -> None:
        """Raise OverError where going on is of no use."""
        if self.over.is_set() or self.lost():
            raise OverError

"""What follows the journals of a node while its ranks run, and compares what they have labelled where a core is idle.

Imports neither torch nor torch_npu; what comparing needs is imported at idle priority too, when it is first needed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.orchestrator.live.journal_tail import ShardNews, read_news

if TYPE_CHECKING:
    from aclcmp.orchestrator.compare.actors.actor import CompareActor
    from aclcmp.orchestrator.compare.actors.remote_reads import Fetched, Read
    from aclcmp.orchestrator.core.diagnosis import TieQuestion
    from aclcmp.orchestrator.core.regions import Pair
    from aclcmp.orchestrator.core.stats import PairStats

_SESSION_NICENESS = "15"
"""A weight of 36 where ranks have 1,024."""


class Follower:
    """Body of the Ray actor. `news` is called in a concurrency group, a thread, of its own: others may take long."""

    def __init__(self) -> None:
        """Load nothing yet: news is wanted first, and sometimes nothing else."""
        stand_apart()
        self._actor: CompareActor | None = None

    def news(self, folder: Path, ranks: frozenset[int], known: Mapping[ShardFiles, int]) -> list[ShardNews]:
        """Return what the journals of these ranks say behind the offsets that are known."""
        # not idle, else where the ranks take all cores nothing is ever told; it takes well under a millisecond
        stand_back(idle=False)
        return read_news(folder, ranks, known)

    def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
        """As CompareActor does, at the lowest priority."""
        return self._idle().compare(pairs, *fetched)

    def read(self, reads: Sequence[Read]) -> tuple[int, Fetched]:
        """As CompareActor does, at the lowest priority."""
        return self._idle().read(reads)

    def count_ties(self, question: TieQuestion) -> int:
        """As CompareActor does, at the lowest priority."""
        return self._idle().count_ties(question)

    def _idle(self) -> CompareActor:
        """What compares, in a thread that is idle from now on."""
        stand_back()
        if self._actor is None:
            from aclcmp.orchestrator.compare.actors.actor import CompareActor

            self._actor = CompareActor()
        return self._actor


def stand_apart() -> None:
    """Make this process a session of its own, of little weight.

    Where Linux shares cores between sessions first (autogroup, often on), priorities count within a session alone, and
    the ranks are in others: there an idle thread would have as much of a core as a rank. With this one it has a
    thirtieth of one core where ranks take all of them; with the lowest, a seventieth, it would never come to compare.
    """
    with suppress(OSError, AttributeError):
        if os.getpgrp() == os.getpid():  # as Ray starts it; what leads a group cannot leave its session
            os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()
        for _ in range(5):
            with suppress(BlockingIOError):  # one such write in a tenth of a second on a machine, but for root
                Path("/proc/self/autogroup").write_text(_SESSION_NICENESS)
                break
            time.sleep(0.1 + random.random() / 10)


def stand_back(*, idle: bool = True) -> None:
    """Give this thread the lowest priority of the ordinary ones, or `idle`: it runs where no other wants the core."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)  # Linux: of the calling thread alone
        if idle:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

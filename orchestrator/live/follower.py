"""The follower of a node: it reads the journals while ranks run, and compares their labels when a core is idle.

It imports neither torch nor torch_npu. The modules for comparing are imported at idle priority, at the first use.
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
from aclcmp.orchestrator.live.journal_tail import NewRecords, read_new_records

if TYPE_CHECKING:
    from aclcmp.orchestrator.compare.actors.actor import CompareActor
    from aclcmp.orchestrator.compare.remote_reads import Fetched, Read
    from aclcmp.orchestrator.core.diagnosis import TieQuestion
    from aclcmp.orchestrator.core.regions import Pair
    from aclcmp.orchestrator.core.stats import PairStats

_SESSION_NICENESS = "15"
"""A weight of 36 where ranks have 1,024."""


class Follower:
    """Body of the Ray actor. `news` runs in a concurrency group, a thread, of its own: other calls may take long."""

    def __init__(self) -> None:
        """Load nothing yet: the first calls, and sometimes all, only ask for news."""
        leave_session()
        self._actor: CompareActor | None = None

    def news(self, folder: Path, ranks: frozenset[int], known: Mapping[ShardFiles, int]) -> list[NewRecords]:
        """Return the records in the journals of these ranks behind the known offsets."""
        # not at idle priority: where ranks take all cores it would never run. It takes well under a millisecond
        lower_priority(idle=False)
        return read_new_records(folder, ranks, known)

    def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
        """As CompareActor does, at the lowest priority."""
        return self._idle_actor().compare(pairs, *fetched)

    def read(self, reads: Sequence[Read]) -> tuple[int, Fetched]:
        """As CompareActor does, at the lowest priority."""
        return self._idle_actor().read(reads)

    def count_ties(self, question: TieQuestion) -> int:
        """As CompareActor does, at the lowest priority."""
        return self._idle_actor().count_ties(question)

    def _idle_actor(self) -> CompareActor:
        """Return the actor that compares; set this thread to idle priority."""
        lower_priority()
        if self._actor is None:
            from aclcmp.orchestrator.compare.actors.actor import CompareActor

            self._actor = CompareActor()
        return self._actor


def leave_session() -> None:
    """Make this process a session of its own, of little weight.

    Where Linux shares cores between sessions first (autogroup, often on), priorities count only within a session, and
    the ranks are in others: an idle thread would get as much of a core as a rank. With this weight it gets a thirtieth
    of one core where ranks take all of them; with the lowest weight, a seventieth, it would never get to compare.
    """
    with suppress(OSError, AttributeError):
        if (
            os.getpgrp() == os.getpid()
        ):  # Ray starts it like that, and the leader of a process group cannot leave its session
            os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()
        for _ in range(5):
            with suppress(
                BlockingIOError
            ):  # except for root, Linux allows one such write per machine in a tenth of a second
                Path("/proc/self/autogroup").write_text(_SESSION_NICENESS)
                break
            time.sleep(0.1 + random.random() / 10)


def lower_priority(*, idle: bool = True) -> None:
    """Give this thread the lowest ordinary priority; `idle`: it runs only where no other thread needs the core."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)  # Linux: of the calling thread alone
        if idle:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

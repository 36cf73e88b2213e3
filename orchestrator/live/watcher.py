"""Live comparison: a Watcher that passes everything on to the screen, and a thread that follows the run.

The thread asks the followers for news, plans ripe labels, compares and judges them, and keeps the results: for the
terminal, to stop the run early, and for the comparison at the end, which reuses them for equal pairs. An error in the
thread is printed once, and the run goes on without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.core.job import Placement, StopAt
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.live.live_state import LiveScreen, LiveState, OverError
from aclcmp.orchestrator.live.progress_text import StallTimer
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions

START_SECONDS = 2.0
"""A run that ends sooner is not followed: starting a follower takes half a second of a core of its host."""
_STOP_SECONDS = 10.0


class LiveWatcher:
    """The watcher of one run, from `on_start` to `close`."""

    def __init__(
        self, shards: Path, screen: LiveScreen, terms: JudgingOptions | None, stop_at: StopAt, lost: Callable[[], bool]
    ) -> None:
        """Watch the shards that grow in the folder `shards` on every host. Without `terms` nothing is compared.

        `lost()` tells whether Ray is lost, so that no call into it can succeed.
        """
        self._shards = shards
        self._shared = LiveState(screen, terms, stop_at, lost, StallTimer(time.monotonic()))
        self._thread: threading.Thread | None = None
        self._last_positions = ""

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        """Pass it on."""
        self._shared.screen.on_dump_setup(sentences)

    def on_start(self, ranks: Sequence[Placement]) -> None:
        """Start to follow the ranks."""
        shared = self._shared
        shared.screen.on_start(ranks)
        shared.ranks = {rank.rank: rank for rank in ranks}
        shared.running = frozenset(shared.ranks)
        shared.stall_timer.reset(time.monotonic())
        self._thread = threading.Thread(target=self._follow, name="live", daemon=True)
        self._thread.start()

    def on_line(self, rank: int, text: str) -> None:
        """Pass the line on; it shows that the rank is alive."""
        self._shared.stall_timer.reset(time.monotonic())
        self._shared.screen.on_line(rank, text)

    def say(self, text: str) -> None:
        """Pass it on."""
        self._shared.screen.say(text)

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        """Pass it on, and stop waiting for the rank."""
        shared = self._shared
        shared.stall_timer.reset(time.monotonic())
        shared.running -= {rank}
        shared.ended.append(rank)
        shared.screen.on_end(rank, state, exit_code)

    @property
    def stop_reason(self) -> str:
        """The reason to end the run now; "" to go on."""
        return self._shared.stopped

    @property
    def progress(self) -> str:
        """The positions of the ranks in words, as at the first call that knew them; "" while they are not known.

        It is read when the ranks are stopped, and again when none runs any more.
        """
        self._last_positions = self._last_positions or self._shared.standing
        return self._last_positions

    @property
    def known(self) -> ResultCache:
        """Results of the comparisons; complete when `close` has returned."""
        return self._shared.known

    def close(self) -> None:
        """Stop following; no thread and no actor is left. A second call does nothing."""
        self._shared.over.set()
        if self._thread is not None:
            # the thread checks several times a second, but a call into a lost Ray may never return
            self._thread.join(1.0 if self._shared.lost() else _STOP_SECONDS)
            self._thread = None
        self._shared.screen.show(())

    def _follow(self) -> None:
        """Follow the run: the body of the thread."""
        shared = self._shared
        if shared.over.wait(START_SECONDS):
            return
        # imported here because it takes time, and a short run needs none of them
        from aclcmp.orchestrator.live.follower import lower_priority
        from aclcmp.orchestrator.live.follower_actors import Followers
        from aclcmp.orchestrator.live.loop import FollowLoop

        lower_priority(idle=False)  # ranks on this host come first
        followers: Followers | None = None
        try:
            followers = Followers(self._shards, {rank: each.node_id for rank, each in shared.ranks.items()})
            FollowLoop(shared, followers).run()
        except OverError:
            pass
        except Exception as error:  # whatever it is, the run is more important
            words = " ".join(str(error).split())
            shared.screen.say(f"live comparison stopped: {type(error).__name__}: {words}; all is compared at the end")
        finally:
            if followers is not None and not shared.lost():
                followers.close()

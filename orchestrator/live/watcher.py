"""A run followed while its ranks run: a Watcher that passes all on to the screen, and a thread of its own.

The thread asks the followers for news, plans labels that are ripe, compares and judges them, and keeps what it finds:
for the terminal, to stop the run early, and for the comparison at the end, which takes what is the very same pair.
Whatever goes wrong in it is told once, and the run goes on without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.core.job import Placement, StopAt
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.live.live_state import Face, OverError, Shared
from aclcmp.orchestrator.live.progress_text import Quiet
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions

START_SECONDS = 2.0
"""A run that is over sooner is not followed: to start a follower takes half a second of a core of its host."""
_STOP_SECONDS = 10.0


class Live:
    """Follows one run, from `started` to `close`."""

    def __init__(
        self, shards: Path, screen: Face, terms: JudgingOptions | None, stop_at: StopAt, lost: Callable[[], bool]
    ) -> None:
        """`shards` is the folder where they grow, on every host. Without `terms` nothing is compared.

        `lost()` tells that no call into Ray will do any more.
        """
        self._shards = shards
        self._shared = Shared(screen, terms, stop_at, lost, Quiet(time.monotonic()))
        self._thread: threading.Thread | None = None
        self._stood = ""

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        """Pass it on."""
        self._shared.screen.on_dump_setup(sentences)

    def on_start(self, ranks: Sequence[Placement]) -> None:
        """The ranks run: follow them."""
        shared = self._shared
        shared.screen.on_start(ranks)
        shared.ranks = {rank.rank: rank for rank in ranks}
        shared.running = frozenset(shared.ranks)
        shared.quiet.news(time.monotonic())
        self._thread = threading.Thread(target=self._follow, name="live", daemon=True)
        self._thread.start()

    def on_line(self, rank: int, text: str) -> None:
        """Pass it on; somebody is alive."""
        self._shared.quiet.news(time.monotonic())
        self._shared.screen.on_line(rank, text)

    def say(self, text: str) -> None:
        """Pass it on."""
        self._shared.screen.say(text)

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        """Pass it on; the rank is waited for no more."""
        shared = self._shared
        shared.quiet.news(time.monotonic())
        shared.running -= {rank}
        shared.ended.append(rank)
        shared.screen.on_end(rank, state, exit_code)

    @property
    def stop_reason(self) -> str:
        """Why the run is to end now, in words; "" to go on."""
        return self._shared.stopped

    @property
    def progress(self) -> str:
        """Where the ranks that ran stood when this was first known, in words; "" as long as it is not known.

        It is asked when the ranks are stopped, and again when none runs any more.
        """
        self._stood = self._stood or self._shared.standing
        return self._stood

    @property
    def known(self) -> ResultCache:
        """What was compared; complete when `close` has returned."""
        return self._shared.known

    def close(self) -> None:
        """Follow no more; no thread and no actor is left. A second call does nothing."""
        self._shared.over.set()
        if self._thread is not None:
            # it looks up several times a second, but a call into a Ray that is lost may never return
            self._thread.join(1.0 if self._shared.lost() else _STOP_SECONDS)
            self._thread = None
        self._shared.screen.show(())

    def _follow(self) -> None:
        """Body of the thread."""
        shared = self._shared
        if shared.over.wait(START_SECONDS):
            return
        # here and not above: they take their time to import, and a short run needs neither
        from aclcmp.orchestrator.live.follower import stand_back
        from aclcmp.orchestrator.live.follower_actors import Followers
        from aclcmp.orchestrator.live.loop import Following

        stand_back(idle=False)  # ranks on this host come first
        followers: Followers | None = None
        try:
            followers = Followers(self._shards, {rank: each.node_id for rank, each in shared.ranks.items()})
            Following(shared, followers).run()
        except OverError:
            pass
        except Exception as error:  # whatever it is, the run is more important
            words = " ".join(str(error).split())
            shared.screen.say(f"live comparison stopped: {type(error).__name__}: {words}; all is compared at the end")
        finally:
            if followers is not None and not shared.lost():
                followers.close()

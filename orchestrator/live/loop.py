"""The loop of the thread that follows a run: from new records to plans, outcomes and verdicts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.schedule import may_be_split
from aclcmp.orchestrator.core.job import StopAt
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.text import of_ranks, visible
from aclcmp.orchestrator.live.follower_actors import TICK, Followers
from aclcmp.orchestrator.live.interim_verdicts import InterimVerdicts
from aclcmp.orchestrator.live.live_state import LiveState
from aclcmp.orchestrator.live.progress_text import positions_text, stall_message
from aclcmp.orchestrator.live.rank_progress import RankProgress
from aclcmp.orchestrator.live.view import view_lines
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.noise_plans import plan_reference
from aclcmp.orchestrator.plan.planner import plan_run

PERIOD = 1.0
"""Seconds between two readings of the journals."""
_STILL_SECONDS = 20.0
"""Readings are a second apart, or as long as planning takes. After a longer break this process itself was stopped."""
_REST = 20.0
"""After judging and drawing, pause for this multiple of the time that they took."""


class FollowLoop:
    """The loop that follows the ranks of one run through the followers on their nodes."""

    def __init__(self, shared: LiveState, followers: Followers) -> None:
        self._shared = shared
        self._followers = followers
        terms = shared.terms
        self._progress = RankProgress(sorted(shared.ranks), planning=terms is not None)
        self._verdicts = None if terms is None else InterimVerdicts(terms.policy, terms.profile)
        nodes = {rank: each.node_id for rank, each in shared.ranks.items()}
        self._places = FileLocations(next(iter(nodes.values())), nodes)
        self._hosts = {rank: each.host for rank, each in shared.ranks.items()}
        self._judging = shared.screen.room is not None or shared.stop_at is not StopAt.NEVER
        self._asked_at = 0.0
        self._rest_until = 0.0
        self._taken_at = time.monotonic()

    def run(self) -> None:
        """Work until the ranks have ended, then raise OverError."""
        while True:
            self._shared.check()
            self._listen()
            busy = self._verdicts is not None and self._compare_ripe(self._verdicts)
            self._judge_and_draw()
            if not busy:
                self._shared.over.wait(max(0.0, self._asked_at + PERIOD - time.monotonic()))

    def _listen(self) -> None:
        """Ask for new records when it is time, and take the answers that come within a second."""
        self._ask()
        until = time.monotonic() + PERIOD
        while self._followers.has_pending and time.monotonic() < until:
            self._take(TICK)

    def _meanwhile(self) -> None:
        """Do the same during a comparison, without waiting."""
        self._shared.check()
        self._ask()
        self._take(0.0)

    def _ask(self) -> None:
        now = time.monotonic()
        if now - self._asked_at >= PERIOD:
            self._asked_at = now
            self._followers.ask(self._progress.known)

    def _take(self, seconds: float) -> None:
        """Take new records of the journals. Raises OverError when the run is over."""
        shared, progress = self._shared, self._progress
        shared.check()
        while shared.ended:
            progress.note_exit(shared.ended.popleft(), time.monotonic())
        new_records = self._followers.collect_news(seconds)
        now = time.monotonic()
        if now - self._taken_at > _STILL_SECONDS:
            shared.stall_timer.skip(now - self._taken_at)
        self._taken_at = now
        before = progress.labels
        late = progress.take(new_records, now)
        if late and self._verdicts is not None:
            self._verdicts.withdraw(late)
        progress.end(self._followers.read_until)
        if progress.labels > before:
            shared.stall_timer.reset(now)
        running = sorted(shared.running)
        shared.standing = positions_text(progress.positions, running, self._hosts)
        # a rank without news here may have labelled all the same
        if not self._followers.unheard & shared.running and (seconds_quiet := shared.stall_timer.due(now)):
            shared.screen.say(stall_message(seconds_quiet, progress.positions, running, self._hosts))

    def _compare_ripe(self, verdicts: InterimVerdicts) -> bool:
        """Plan and compare the labels that have become ripe; return whether there were any."""
        indices = self._progress.take_ripe(time.monotonic(), self._followers.unheard)
        self._progress.forget()
        if not indices:
            return False
        world = len(self._shared.ranks)
        done = compare_and_resolve(plan_run(indices, world), self._compare)
        reference = plan_reference(indices, world)
        references = {} if reference is None else self._compare(reference.pairs)
        if self._judging:
            verdicts.add(done, references)
        return True

    def _compare(self, pairs: Sequence[Pair]) -> Outcomes:
        found, left = self._shared.known.take(pairs)
        new = self._followers.compare(left, self._places, self._meanwhile) if left else {}
        cut = {(pair.key, pair.rank) for pair in left if may_be_split(pair, self._places)}
        self._shared.known.keep(left, {name: outcome for name, outcome in new.items() if name not in cut})
        return found | new

    def _judge_and_draw(self) -> None:
        """Judge new outcomes and show them; pause after a pass that took long."""
        began = time.monotonic()
        if began < self._rest_until:
            return
        verdicts, room = self._verdicts, self._shared.screen.room
        if verdicts is not None and verdicts.tasks:
            self._judge(verdicts)
        if room is not None:
            judgement, away = (None, {}) if verdicts is None else (verdicts.as_judgement(), verdicts.put_away)
            self._shared.screen.show(
                view_lines(judgement, away, self._progress.positions, sorted(self._shared.ranks), *room)
            )
        self._rest_until = time.monotonic() + _REST * (time.monotonic() - began)

    def _judge(self, verdicts: InterimVerdicts) -> None:
        streams = self._progress.streams
        while questions := verdicts.judge({task: streams.chains(task) for task in verdicts.tasks}):
            verdicts.answer(self._followers.count_ties(questions, self._places, self._meanwhile))
        wanted = self._shared.stop_at is StopAt.FIRST_DIVERGENCE and not self._shared.stopped
        if wanted and (first := verdicts.first_own()):
            key, ranks = first
            where = f"{visible(key.label)}, task {key.task}, {of_ranks(ranks)}"
            self._shared.screen.say(f"first divergence seen: {where}: stopping the ranks")
            self._shared.stopped = f"stopped at the first divergence that was seen: {where}"
        verdicts.close_tasks(streams.oldest_task)

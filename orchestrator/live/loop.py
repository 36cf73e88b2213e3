"""The work of the thread that follows a run: from news to plans, outcomes and verdicts, again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.schedule import may_be_cut
from aclcmp.orchestrator.core.job import StopAt
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.text import of_ranks, visible
from aclcmp.orchestrator.live.follower_actors import TICK, Followers
from aclcmp.orchestrator.live.interim_verdicts import Findings
from aclcmp.orchestrator.live.live_state import Shared
from aclcmp.orchestrator.live.progress_text import stall, standing
from aclcmp.orchestrator.live.rank_progress import Ledger
from aclcmp.orchestrator.live.view import lines
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.noise_plans import plan_reference
from aclcmp.orchestrator.plan.planner import plan_run

PERIOD = 1.0
"""Seconds between two looks at the journals."""
_STILL_SECONDS = 20.0
"""Looks are a second apart, or as long as planning takes. After a longer break this process itself stood still."""
_REST = 20.0
"""Times what judging and drawing all anew took: so long it is not done again, however many labels there are."""


class Following:
    """Follows the ranks of one run, by the followers on their nodes."""

    def __init__(self, shared: Shared, followers: Followers) -> None:
        self._shared = shared
        self._followers = followers
        terms = shared.terms
        self._ledger = Ledger(sorted(shared.ranks), planning=terms is not None)
        self._findings = None if terms is None else Findings(terms.policy, terms.profile)
        nodes = {rank: each.node_id for rank, each in shared.ranks.items()}
        self._places = FileLocations(next(iter(nodes.values())), nodes)
        self._hosts = {rank: each.host for rank, each in shared.ranks.items()}
        self._judging = shared.screen.room is not None or shared.stop_at is not StopAt.NEVER
        self._asked_at = 0.0
        self._rest_until = 0.0
        self._taken = time.monotonic()

    def run(self) -> None:
        """Work until the ranks have ended, which raises OverError."""
        while True:
            self._shared.check()
            self._listen()
            busy = self._findings is not None and self._compare_ripe(self._findings)
            self._judge_and_draw()
            if not busy:
                self._shared.over.wait(max(0.0, self._asked_at + PERIOD - time.monotonic()))

    def _listen(self) -> None:
        """Ask what is new if it is time, and take what is answered within a second."""
        self._ask()
        until = time.monotonic() + PERIOD
        while self._followers.owing and time.monotonic() < until:
            self._take(TICK)

    def _meanwhile(self) -> None:
        """While something is compared: the same, without waiting for anything."""
        self._shared.check()
        self._ask()
        self._take(0.0)

    def _ask(self) -> None:
        now = time.monotonic()
        if now - self._asked_at >= PERIOD:
            self._asked_at = now
            self._followers.ask(self._ledger.known)

    def _take(self, seconds: float) -> None:
        """Take what the journals say. Raises OverError where that is of no more use."""
        shared, ledger = self._shared, self._ledger
        shared.check()
        while shared.ended:
            ledger.over(shared.ended.popleft(), time.monotonic())
        news = self._followers.heard(seconds)
        now = time.monotonic()
        if now - self._taken > _STILL_SECONDS:
            shared.quiet.unheard(now - self._taken)
        self._taken = now
        before = ledger.labels
        late = ledger.take(news, now)
        if late and self._findings is not None:
            self._findings.take_back(late)
        ledger.end(self._followers.looked)
        if ledger.labels > before:
            shared.quiet.news(now)
        running = sorted(shared.running)
        shared.standing = standing(ledger.stands, running, self._hosts)
        # what is not heard may have labelled
        if not self._followers.unheard & shared.running and (seconds_quiet := shared.quiet.due(now)):
            shared.screen.say(stall(seconds_quiet, ledger.stands, running, self._hosts))

    def _compare_ripe(self, findings: Findings) -> bool:
        """Plan and compare what has become ripe; return whether there was something."""
        indices = self._ledger.take_ripe(time.monotonic(), self._followers.unheard)
        self._ledger.forget()
        if not indices:
            return False
        world = len(self._shared.ranks)
        done = compare_and_resolve(plan_run(indices, world), self._compare)
        reference = plan_reference(indices, world)
        references = {} if reference is None else self._compare(reference.pairs)
        if self._judging:
            findings.add(done, references)
        return True

    def _compare(self, pairs: Sequence[Pair]) -> Outcomes:
        found, left = self._shared.known.take(pairs)
        new = self._followers.compare(left, self._places, self._meanwhile) if left else {}
        cut = {(pair.key, pair.rank) for pair in left if may_be_cut(pair, self._places)}
        self._shared.known.keep(left, {name: outcome for name, outcome in new.items() if name not in cut})
        return found | new

    def _judge_and_draw(self) -> None:
        """Judge what is new and show it, unless that took long and was not long ago."""
        began = time.monotonic()
        if began < self._rest_until:
            return
        findings, room = self._findings, self._shared.screen.room
        if findings is not None and findings.tasks:
            self._judge(findings)
        if room is not None:
            judgement, away = (None, {}) if findings is None else (findings.shown(), findings.put_away)
            self._shared.screen.show(lines(judgement, away, self._ledger.stands, sorted(self._shared.ranks), *room))
        self._rest_until = time.monotonic() + _REST * (time.monotonic() - began)

    def _judge(self, findings: Findings) -> None:
        streams = self._ledger.streams
        while questions := findings.judge({task: streams.chains(task) for task in findings.tasks}):
            findings.answer(self._followers.count_ties(questions, self._places, self._meanwhile))
        wanted = self._shared.stop_at is StopAt.FIRST_DIVERGENCE and not self._shared.stopped
        if wanted and (first := findings.first_own()):
            key, ranks = first
            where = f"{visible(key.label)}, task {key.task}, {of_ranks(ranks)}"
            self._shared.screen.say(f"first divergence seen: {where}: stopping the ranks")
            self._shared.stopped = f"stopped at the first divergence that was seen: {where}"
        findings.close_tasks(streams.oldest_task)

"""Follow the running commands: hand on their lines, stop all when one fails, time is up or a signal comes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from aclcmp.orchestrator.core.job import Placement
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.core.text import of_ranks
from aclcmp.orchestrator.core.torch_faults import ErrorTrail
from aclcmp.orchestrator.launch.actors import TICK
from aclcmp.orchestrator.launch.rank_host import Batch
from aclcmp.orchestrator.launch.silence import Silence

TAIL = 15
"""Last lines of a rank that are kept for the record."""
STOP_SECONDS = 15.0
"""A guard needs up to two seconds for polite processes; after this its actor is killed."""


class Watcher(Protocol):
    """Who wants to see the run. All calls come from the thread that called `launch`."""

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        """With `--low-level`: what was prepared for the library's dumps, before `started`."""

    def on_start(self, ranks: Sequence[Placement]) -> None:
        """The ranks run, here."""

    def on_line(self, rank: int, text: str) -> None:
        """One line of output. Under launcher `script` a node's lines come with the node's first rank."""

    def say(self, text: str) -> None:
        """Something that people should know now."""

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        """The rank has ended."""


class StopAdviser(Protocol):
    """Who knows more of the run than what its commands print. Asked often, from the thread that called `launch`."""

    @property
    def stop_reason(self) -> str:
        """Why the run is to end now though nothing failed, in words; "" to go on."""

    @property
    def progress(self) -> str:
        """Where the ranks that run stood last, in words; "" if that is not known."""


@dataclass(slots=True)
class Command:
    """One running command and what is known of it."""

    host: Any
    """Its RankHost actor."""
    ranks: tuple[Placement, ...]
    log: Path
    started: float
    state: RankState | None = None
    """None while it runs."""
    exit_code: int | None = None
    finished: float = 0.0
    why_lost: str = ""
    host_lost: bool = False
    """It is lost because its actor died, which no other rank's failure does."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    errors: ErrorTrail = field(default_factory=ErrorTrail)

    @property
    def node_id(self) -> str:
        """The node that it runs on."""
        return self.ranks[0].node_id

    def hear(self, lines: Sequence[str]) -> None:
        """Keep of its next lines of output what may explain its end."""
        self.tail.extend(lines)
        for line in lines:
            self.errors.hear(line)


class Reason(Enum):
    """Why the commands were stopped."""

    FAILURE = "failure"
    TIMEOUT = "timeout"
    SIGNAL = "signal"
    HEAD = "head"
    """The cluster's head is gone."""
    ENOUGH = "enough"
    """What was looked for is found: no failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the following ended."""

    reason: Reason | None
    """None: every command ended by itself with code 0."""
    running: tuple[Command, ...] = ()
    """Those that ran when the commands were stopped."""


def follow(
    commands: Sequence[Command],
    watcher: Watcher,
    timeout: float | None,
    asked: Callable[[], Reason | None],
    stopping: Callable[[Outcome], str],
) -> Outcome:
    """Return when every command has ended; then each has its state. `timeout` in seconds from now.

    `asked()` gives a reason to stop that does not come from the commands, or None; `stopping` what to say then.
    """
    import ray

    waiting = {command.host.next.remote(): command for command in commands}
    deadline = None if timeout is None else time.monotonic() + timeout
    outcome, give_up = Outcome(None), 0.0
    silence = Silence(_names(commands), time.monotonic())

    def end(command: Command, state: RankState, code: int | None, when: float) -> None:
        if command.state is None:
            command.state, command.exit_code, command.finished = state, code, when
            for rank in command.ranks:
                watcher.on_end(rank.rank, state, code)

    def stop(reason: Reason) -> None:
        nonlocal outcome, give_up
        outcome = Outcome(reason, tuple(command for command in commands if command.state is None))
        give_up = time.monotonic() + STOP_SECONDS
        for command in waiting.values():
            command.host.stop.remote()
        if waiting and (sentence := stopping(outcome)):
            watcher.say(sentence)

    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=TICK)
        if ready:  # and all others: one at a time, a thousand ranks would be heard too slowly
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for ref in ready:
            command = waiting.pop(ref)
            try:
                batch: Batch = ray.get(ref)
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                command.why_lost = " ".join(str(error).split())
                command.host_lost = True
                end(command, RankState.LOST, None, time.time())
            else:
                if back := silence.heard(command.node_id, time.monotonic()):
                    watcher.say(back)
                _show(command, batch, watcher)
                if batch.exit is not None:
                    state = _state(batch.exit.code, batch.exit.stopped, outcome)
                    end(command, state, batch.exit.code, time.time() - batch.ago)
                if not batch.done:
                    waiting[command.host.next.remote()] = command
                    continue
                if command.state is None:
                    command.why_lost = "because its output could not be followed."
                    end(command, RankState.LOST, None, time.time())
            if not any(other.node_id == command.node_id for other in waiting.values()):
                silence.over(command.node_id)
        for sentence in silence.fallen(time.monotonic()):
            watcher.say(sentence)
        if outcome.reason is None:
            if reason := _reason(commands, deadline) or asked():
                stop(reason)
        elif time.monotonic() > give_up:
            for command in waiting.values():
                command.why_lost = "because it did not stop."
                end(command, RankState.LOST, None, time.time())
            break
    return outcome


def _names(commands: Sequence[Command]) -> dict[str, str]:
    """What to call each node: its host and ranks."""
    ranks: dict[str, list[Placement]] = {}
    for command in commands:
        ranks.setdefault(command.node_id, []).extend(command.ranks)
    return {
        node: f"host {here[0].host} ({here[0].ip}, {of_ranks(place.rank for place in here)})"
        for node, here in ranks.items()
    }


def _show(command: Command, batch: Batch, watcher: Watcher) -> None:
    rank = command.ranks[0].rank
    if batch.hidden:
        watcher.on_line(rank, f"... {batch.hidden:,} lines not shown, see {command.log}")
    for line in batch.lines:
        watcher.on_line(rank, line)
    command.hear(batch.lines)


def _reason(commands: Sequence[Command], deadline: float | None) -> Reason | None:
    if any(command.state in (RankState.FAILED, RankState.LOST) for command in commands):
        return Reason.FAILURE
    if deadline is not None and time.monotonic() > deadline:
        return Reason.TIMEOUT
    return None


def _state(code: int, stopped: bool, outcome: Outcome) -> RankState:
    if stopped:
        return _stopped(outcome)
    return RankState.FINISHED if code == 0 else RankState.FAILED


def _stopped(outcome: Outcome) -> RankState:
    return RankState.TIMEOUT if outcome.reason is Reason.TIMEOUT else RankState.STOPPED

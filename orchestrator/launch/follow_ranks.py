"""Follow the running commands: pass on their output, and stop all when one fails, time is up or a signal comes."""

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
    """Observer of a run. All calls come from the thread that called `launch`."""

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        """Show how the library's dumps were prepared. Called before `on_start`, with `--low-level` only."""

    def on_start(self, ranks: Sequence[Placement]) -> None:
        """Show that the ranks run, and where."""

    def on_line(self, rank: int, text: str) -> None:
        """Show one line of output. Under launcher `script` a node's lines come with the node's first rank."""

    def say(self, text: str) -> None:
        """Show a message for the user."""

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        """Show that a rank has ended."""


class StopAdviser(Protocol):
    """Source of a reason to stop a run early. Asked several times a second, from the thread that called `launch`."""

    @property
    def stop_reason(self) -> str:
        """Reason to end the run now though nothing failed, in words; "" to go on."""

    @property
    def progress(self) -> str:
        """How far the running ranks have come, in words; "" if that is not known."""


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
    """True when its actor died. Unlike a failed command, that never follows from another rank's failure."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    errors: ErrorTrail = field(default_factory=ErrorTrail)

    @property
    def node_id(self) -> str:
        """Ray's id of the node that it runs on."""
        return self.ranks[0].node_id

    def hear(self, lines: Sequence[str]) -> None:
        """Keep those of its next lines of output that may explain its end."""
        self.tail.extend(lines)
        for line in lines:
            self.errors.hear(line)


class Reason(Enum):
    """Reason why the commands were stopped."""

    FAILURE = "failure"
    TIMEOUT = "timeout"
    SIGNAL = "signal"
    HEAD = "head"
    """The cluster's head is gone."""
    ENOUGH = "enough"
    """The adviser found what it looked for: no failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of following the commands."""

    reason: Reason | None
    """None: every command ended by itself with code 0."""
    running: tuple[Command, ...] = ()
    """Commands that ran when all were stopped."""


def follow(
    commands: Sequence[Command],
    watcher: Watcher,
    timeout: float | None,
    stop_asked: Callable[[], Reason | None],
    stop_message: Callable[[Outcome], str],
) -> Outcome:
    """Wait until every command has ended and has its state. `timeout` is in seconds from now.

    `stop_asked()` returns a reason to stop that does not come from the commands, or None; `stop_message` returns
    the sentence to show when they are stopped.
    """
    import ray

    waiting = {command.host.next.remote(): command for command in commands}
    deadline = None if timeout is None else time.monotonic() + timeout
    outcome, kill_time = Outcome(None), 0.0
    silence = Silence(_names(commands), time.monotonic())

    def end(command: Command, state: RankState, code: int | None, when: float) -> None:
        if command.state is None:
            command.state, command.exit_code, command.finished = state, code, when
            for rank in command.ranks:
                watcher.on_end(rank.rank, state, code)

    def stop(reason: Reason) -> None:
        nonlocal outcome, kill_time
        outcome = Outcome(reason, tuple(command for command in commands if command.state is None))
        kill_time = time.monotonic() + STOP_SECONDS
        for command in waiting.values():
            command.host.stop.remote()
        if waiting and (sentence := stop_message(outcome)):
            watcher.say(sentence)

    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=TICK)
        if ready:  # take all that are ready: one at a time would be too slow for a thousand ranks
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
                if sentence := silence.heard(command.node_id, time.monotonic()):
                    watcher.say(sentence)
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
        for sentence in silence.new_sentences(time.monotonic()):
            watcher.say(sentence)
        if outcome.reason is None:
            if reason := _reason(commands, deadline) or stop_asked():
                stop(reason)
        elif time.monotonic() > kill_time:
            for command in waiting.values():
                command.why_lost = "because it did not stop."
                end(command, RankState.LOST, None, time.time())
            break
    return outcome


def _names(commands: Sequence[Command]) -> dict[str, str]:
    """Return a name for each node, by node id: its host and ranks."""
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
        return RankState.TIMEOUT if outcome.reason is Reason.TIMEOUT else RankState.STOPPED
    return RankState.FINISHED if code == 0 else RankState.FAILED

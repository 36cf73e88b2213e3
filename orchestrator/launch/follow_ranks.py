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
from aclcmp.orchestrator.launch.guarded_command import Batch
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
    """Running command, with its state and output."""

    ranks: tuple[Placement, ...]
    log: Path
    started: float
    state: RankState | None = None
    """None while it runs."""
    exit_code: int | None = None
    finished: float = 0.0
    why_lost: str = ""
    host_lost: bool = False
    """True when its host's actor died. Unlike a failed command, that never follows from another rank's failure."""
    done: bool = False
    """True when all its processes are gone and all its lines were taken."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    errors: ErrorTrail = field(default_factory=ErrorTrail)

    def hear(self, lines: Sequence[str]) -> None:
        """Keep those of its next lines of output that may explain its end."""
        self.tail.extend(lines)
        for line in lines:
            self.errors.hear(line)


@dataclass(frozen=True, slots=True)
class RunningHost:
    """Host with running commands."""

    actor: Any
    """Its RankHost."""
    commands: tuple[Command, ...]
    """In the order in which the actor started them."""

    @property
    def node_id(self) -> str:
        """Ray's id of its node."""
        return self.commands[0].ranks[0].node_id


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
    hosts: Sequence[RunningHost],
    watcher: Watcher,
    timeout: float | None,
    stop_asked: Callable[[], Reason | None],
    stop_message: Callable[[Outcome], str],
) -> Outcome:
    """Wait until every command has ended and has its state. `timeout` is in seconds from now.

    `stop_asked()` returns a reason to stop that does not come from the commands, or None; `stop_message` returns
    the sentence to show when they are stopped.
    """
    following = _Following(hosts, watcher, stop_message)
    deadline = None if timeout is None else time.monotonic() + timeout
    while following.waiting:
        following.take_output()
        following.report_silent_hosts()
        if following.outcome.reason is None:
            if reason := _reason(following.commands, deadline) or stop_asked():
                following.stop(reason)
        elif time.monotonic() > following.kill_time:
            following.give_up()
            break
    return following.outcome


class _Following:
    """The hosts of which more output is awaited, and the outcome so far."""

    def __init__(self, hosts: Sequence[RunningHost], watcher: Watcher, stop_message: Callable[[Outcome], str]) -> None:
        self.commands = [command for host in hosts for command in host.commands]
        self.waiting = {host.actor.next.remote(): host for host in hosts}
        """By the reference to a host's next output."""
        self.outcome = Outcome(None)
        self.kill_time = 0.0
        """When commands that were stopped are given up."""
        self._watcher = watcher
        self._stop_message = stop_message
        self._silence = Silence({host.node_id: _name(host) for host in hosts}, time.monotonic())

    def take_output(self) -> None:
        """Take what the hosts have sent, or wait a moment for it."""
        import ray

        ready, _ = ray.wait(list(self.waiting), num_returns=1, timeout=TICK)
        if ready:  # take all that are ready: one at a time would be too slow for many hosts
            ready, _ = ray.wait(list(self.waiting), num_returns=len(self.waiting), timeout=0)
        for ref in ready:
            host = self.waiting.pop(ref)
            try:
                batches: dict[int, Batch] = ray.get(ref)
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                why = " ".join(str(error).split())
                for command in host.commands:
                    self._lose(command, why, host_lost=True)
            else:
                if sentence := self._silence.heard(host.node_id, time.monotonic()):
                    self._watcher.say(sentence)
                for position, batch in batches.items():
                    self._take_batch(host.commands[position], batch)
                if not all(command.done for command in host.commands):
                    self.waiting[host.actor.next.remote()] = host
                    continue
            self._silence.over(host.node_id)

    def report_silent_hosts(self) -> None:
        """Say which hosts no longer answer."""
        for sentence in self._silence.new_sentences(time.monotonic()):
            self._watcher.say(sentence)

    def stop(self, reason: Reason) -> None:
        """Stop all commands that still run."""
        self.outcome = Outcome(reason, tuple(command for command in self.commands if command.state is None))
        self.kill_time = time.monotonic() + STOP_SECONDS
        for host in self.waiting.values():
            host.actor.stop.remote()
        if self.waiting and (sentence := self._stop_message(self.outcome)):
            self._watcher.say(sentence)

    def give_up(self) -> None:
        """Count commands that did not stop as lost."""
        for host in self.waiting.values():
            for command in host.commands:
                self._lose(command, "because it did not stop.")

    def _take_batch(self, command: Command, batch: Batch) -> None:
        _show(command, batch, self._watcher)
        command.done = batch.done
        if batch.exit is not None:
            state = _state(batch.exit.code, batch.exit.stopped, self.outcome)
            self._end(command, state, batch.exit.code, time.time() - batch.ago)
        elif batch.done:
            self._lose(command, "because its output could not be followed.")

    def _lose(self, command: Command, why: str, *, host_lost: bool = False) -> None:
        """Count a command as lost, unless it has ended."""
        if command.state is None:
            command.why_lost, command.host_lost = why, host_lost
            self._end(command, RankState.LOST, None, time.time())

    def _end(self, command: Command, state: RankState, code: int | None, when: float) -> None:
        """Give a command its state, unless it has one."""
        if command.state is None:
            command.state, command.exit_code, command.finished = state, code, when
            for rank in command.ranks:
                self._watcher.on_end(rank.rank, state, code)


def _name(host: RunningHost) -> str:
    """Return a name for people: the host and its ranks."""
    ranks = [rank for command in host.commands for rank in command.ranks]
    return f"host {ranks[0].host} ({ranks[0].ip}, {of_ranks(rank.rank for rank in ranks)})"


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

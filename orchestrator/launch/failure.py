"""Explain for people what went wrong: from the commands that were followed to the record's Failure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from aclcmp.orchestrator.core.run_record import Failure, RankState
from aclcmp.orchestrator.launch.follow_ranks import TAIL, Command, Outcome, Reason

_PORT_TAKEN = ("Address already in use", "EADDRINUSE", "address already in use")


def first_failure(
    commands: Sequence[Command],
    outcome: Outcome,
    caught: signal.Signals | None,
    timeout: float | None,
    head: str = "",
    progress: str = "",
) -> Failure | None:
    """Return the first failure by time, but a lost host before failures that may follow from it; None if all went well.

    `head` says what is wrong with the cluster's head, `progress` how far the ranks had come.
    """
    failed = [command for command in commands if command.state in (RankState.FAILED, RankState.LOST)]
    if outcome.reason is Reason.FAILURE or (outcome.reason is Reason.ENOUGH and failed):
        # Ray reports a lost host a second late; in a collective its peers on other hosts have failed by then
        return _command_failure(min(failed, key=lambda command: (not command.host_lost, command.finished)))
    if outcome.reason is Reason.TIMEOUT:
        return _timeout_failure(outcome.running, timeout, progress)
    if outcome.reason is Reason.SIGNAL and caught is not None:
        return interruption(caught, "the ranks that ran were stopped")
    if outcome.reason is Reason.HEAD:
        return Failure(rank=None, what=f"{head}; the ranks that ran were stopped")
    return None


def stop_message(outcome: Outcome, cause: Failure | None) -> str:
    """Return the message for the moment when the remaining commands are stopped because of `cause`."""
    if outcome.reason is Reason.SIGNAL:
        return "interrupted: stopping the ranks (once more to kill them)"
    if cause is None:
        return ""
    if outcome.reason is Reason.HEAD:
        return f"{cause.what.partition(';')[0]}: stopping the ranks"
    return f"{cause.what}: stopping {'the others' if outcome.reason is Reason.FAILURE else 'the ranks'}"


def interruption(caught: signal.Signals | None, then: str) -> Failure:
    """Return the failure of a run that the user ended; `then` says what became of the ranks."""
    return Failure(rank=None, what=f"interrupted by {caught.name if caught else 'Ctrl-C'}; {then}")


def _command_failure(command: Command) -> Failure:
    what = f"{_name(command)} {_ending(command)}"
    if any(words in line for line in command.tail for words in _PORT_TAKEN):
        what += "; a port that it needs is in use by another process: run it again"
    if any("No module named 'aclcmp'" in line for line in command.tail):
        what += "; its python has no aclcmp: activate the environment of aclcmp, or install aclcmp into the script's"
    if fault := command.errors.fault() if _ended_itself(command) else None:
        what += f"; {fault.what}: {fault.fix}"
    return Failure(rank=command.ranks[0].rank, what=what, last_lines=tuple(command.tail))


def _ended_itself(command: Command) -> bool:
    return command.exit_code is not None and command.exit_code < 128  # higher codes stand for signals


def _timeout_failure(running: Sequence[Command], timeout: float | None, progress: str) -> Failure:
    names = ", ".join(_name(command) for command in running[:8]) + (", ..." if len(running) > 8 else "")
    alone = running[0] if len(running) == 1 else None
    return Failure(
        rank=alone.ranks[0].rank if alone else None,
        what=f"timed out after {timeout:g} s; still running: {names}" + (f"; {progress}" if progress else ""),
        last_lines=tuple(alone.tail)
        if alone
        else tuple(f"[rank{command.ranks[0].rank}] {command.tail[-1]}" for command in running if command.tail)[:TAIL],
    )


def _ending(command: Command) -> str:
    code = command.exit_code
    if code is None:
        because = re.search(r"because (.+?)[.:]", command.why_lost)  # after this, Ray's text has ids and advice
        return f"was lost: its host or its actor died{f' ({because[1]})' if because else ''}"
    if code == 128 + signal.SIGKILL:
        return f"exited with code {code} (SIGKILL; often the system was out of memory)"
    if code - 128 in {int(each) for each in signal.Signals}:
        return f"exited with code {code} ({signal.Signals(code - 128).name})"
    return f"exited with code {code}"


def _name(command: Command) -> str:
    first, last = command.ranks[0], command.ranks[-1]
    if first is not last:
        return f"ranks {first.rank}-{last.rank} (host {first.host})"
    return f"rank {first.rank} (host {first.host}{', device ' + first.devices[0] if first.devices else ''})"

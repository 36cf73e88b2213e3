"""What went wrong, in words for people: from the followed commands to the record's Failure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from aclcmp.orchestrator.core.run_record import Failure, RankState
from aclcmp.orchestrator.launch.follow_ranks import TAIL, Command, Outcome, Reason

_PORT_TAKEN = ("Address already in use", "EADDRINUSE", "address already in use")


def failure(
    commands: Sequence[Command],
    outcome: Outcome,
    caught: signal.Signals | None,
    timeout: float | None,
    head: str = "",
    stood: str = "",
) -> Failure | None:
    """The first thing that went wrong, by time, a lost host before what may follow from it; None when nothing did.

    `head`: what is wrong with the cluster's; `stood`: where the ranks stood last.
    """
    failed = [command for command in commands if command.state in (RankState.FAILED, RankState.LOST)]
    if outcome.reason is Reason.FAILURE or (outcome.reason is Reason.ENOUGH and failed):
        # Ray tells a second late that a host is gone; in a collective its peers on other hosts have failed by then
        return _failed(min(failed, key=lambda command: (not command.host_lost, command.finished)))
    if outcome.reason is Reason.TIMEOUT:
        return _timed_out(outcome.running, timeout, stood)
    if outcome.reason is Reason.SIGNAL and caught is not None:
        return interrupted(caught, "the ranks that ran were stopped")
    if outcome.reason is Reason.HEAD:
        return Failure(rank=None, what=f"{head}; the ranks that ran were stopped")
    return None


def stopping(outcome: Outcome, found: Failure | None) -> str:
    """What to say at the moment when the commands that still run are stopped because of what was `found`."""
    if outcome.reason is Reason.SIGNAL:
        return "interrupted: stopping the ranks (once more to kill them)"
    if found is None:
        return ""
    if outcome.reason is Reason.HEAD:
        return f"{found.what.partition(';')[0]}: stopping the ranks"
    return f"{found.what}: stopping {'the others' if outcome.reason is Reason.FAILURE else 'the ranks'}"


def interrupted(caught: signal.Signals | None, then: str) -> Failure:
    """The user ended the run."""
    return Failure(rank=None, what=f"interrupted by {caught.name if caught else 'Ctrl-C'}; {then}")


def _failed(command: Command) -> Failure:
    what = f"{_name(command)} {_ending(command)}"
    if any(words in line for line in command.tail for words in _PORT_TAKEN):
        what += "; a port that it needs is in use by another process: run it again"
    if any("No module named 'aclcmp'" in line for line in command.tail):
        what += "; its python has no aclcmp: activate the environment of aclcmp, or install aclcmp into the script's"
    if fault := command.errors.fault() if _ended_itself(command) else None:
        what += f"; {fault.what}: {fault.fix}"
    return Failure(rank=command.ranks[0].rank, what=what, last_lines=tuple(command.tail))


def _ended_itself(command: Command) -> bool:
    return command.exit_code is not None and command.exit_code < 128  # more is a signal


def _timed_out(running: Sequence[Command], timeout: float | None, stood: str) -> Failure:
    names = ", ".join(_name(command) for command in running[:8]) + (", ..." if len(running) > 8 else "")
    alone = running[0] if len(running) == 1 else None
    return Failure(
        rank=alone.ranks[0].rank if alone else None,
        what=f"timed out after {timeout:g} s; still running: {names}" + (f"; {stood}" if stood else ""),
        last_lines=tuple(alone.tail)
        if alone
        else tuple(f"[rank{command.ranks[0].rank}] {command.tail[-1]}" for command in running if command.tail)[:TAIL],
    )


def _ending(command: Command) -> str:
    code = command.exit_code
    if code is None:
        because = re.search(r"because (.+?)[.:]", command.why_lost)  # Ray goes on with ids and advice
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

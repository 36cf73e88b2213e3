"""The positions of ranks in words, and when to print them because nothing happens. Pure: the time is a parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from aclcmp.orchestrator.core.text import of_ranks, visible
from aclcmp.orchestrator.live.rank_progress import RankPosition
from aclcmp.orchestrator.terminal.cells import shorten

STALL_SECONDS = (60.0, 300.0)
"""Seconds without a label or a line of output after which the positions of the ranks are printed, once each."""
_MOST_PLACES = 4
_NAME_ROOM = 48


class StallTimer:
    """The time since the last label or line of output of any rank."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._reported = 0

    def reset(self, now: float) -> None:
        """Note that a rank has labelled or printed something."""
        self._since = now
        self._reported = 0

    def skip(self, seconds: float) -> None:
        """Leave out a time in which nobody listened: there may have been labels."""
        self._since += seconds

    def due(self, now: float) -> float | None:
        """Return the seconds of quiet to report now, each value once; None if there is nothing to report."""
        if self._reported < len(STALL_SECONDS) and now - self._since >= STALL_SECONDS[self._reported]:
            self._reported += 1
            return STALL_SECONDS[self._reported - 1]
        return None


def positions_text(positions: Mapping[int, RankPosition], running: Collection[int], hosts: Mapping[int, str]) -> str:
    """Return after which label each running rank stands, the smallest groups first; "" if no rank has set any.

    `hosts`: the host by rank, named for a rank that is alone at its position.
    """
    places = _places(positions, running)
    if not any(places):
        return ""
    tasks = {place.task for place in places if place is not None}
    parts = []
    for number, (place, ranks) in enumerate(places.items()):
        if number == _MOST_PLACES and len(places) > _MOST_PLACES + 1:
            parts.append(f"{sum(map(len, list(places.values())[number:])):,} ranks elsewhere")
            break
        who = of_ranks(ranks)
        if len(ranks) == 1 and ranks[0] in hosts:
            who += f" (host {hosts[ranks[0]]})"
        verb = ("stands " if len(ranks) == 1 else "stand ") if number == 0 else ""
        if place is None:
            parts.append(f"{who} {'before the first label' if verb == '' else verb + 'before the first label'}")
            continue
        task = f" (task {place.task})" if len(tasks) > 1 else ""
        parts.append(f"{who} {verb}after {shorten(visible(place.last), _NAME_ROOM)}{task}")
    return ", ".join(parts)


def stall_message(
    seconds: float, positions: Mapping[int, RankPosition], running: Collection[int], hosts: Mapping[int, str]
) -> str:
    """Return one line for a run in which nothing happens."""
    head = f"no news for {seconds:g} s"
    where = positions_text(positions, running, hosts)
    if not where:
        return f"{head}: no rank has set a label yet"
    apart = len(_places(positions, running)) > 1
    return f"{head}: {where}" + (": a rank that hangs in a collective?" if apart else "")


def group_ranks(positions: Mapping[int, RankPosition]) -> list[tuple[RankPosition, list[int]]]:
    """Return groups of ranks at the same position, those with the fewest labels first."""
    found: dict[RankPosition, list[int]] = defaultdict(list)
    for rank, position in sorted(positions.items()):
        found[position].append(rank)
    return sorted(found.items(), key=lambda item: (item[0].labels, item[1]))


def _places(positions: Mapping[int, RankPosition], running: Collection[int]) -> dict[RankPosition | None, list[int]]:
    """Return ranks by position, the smallest groups first. The number of labels before the position does not count."""
    found: dict[RankPosition | None, list[int]] = defaultdict(list)
    for rank in sorted(running):
        position = positions.get(rank)
        found[None if position is None else RankPosition(0, position.task, position.last)].append(rank)
    return dict(sorted(found.items(), key=lambda item: (len(item[1]), item[1])))

"""Where ranks stand, in words, and when it is worth telling because nothing goes on. Pure: the clock is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from aclcmp.orchestrator.core.text import of_ranks, visible
from aclcmp.orchestrator.live.rank_progress import Stand
from aclcmp.orchestrator.terminal.cells import shorten

STALL_SECONDS = (60.0, 300.0)
"""After so long without a label or a line of output it is told where the ranks stand, and no more."""
_MOST_PLACES = 4
_NAME_ROOM = 48


class Quiet:
    """How long there has been no news."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._told = 0

    def news(self, now: float) -> None:
        """A rank has labelled or printed something."""
        self._since = now
        self._told = 0

    def unheard(self, seconds: float) -> None:
        """For so long nobody listened, so that there may have been news."""
        self._since += seconds

    def due(self, now: float) -> float | None:
        """The seconds of quiet that are to be told now, each once; None if nothing is to be told."""
        if self._told < len(STALL_SECONDS) and now - self._since >= STALL_SECONDS[self._told]:
            self._told += 1
            return STALL_SECONDS[self._told - 1]
        return None


def standing(stands: Mapping[int, Stand], running: Collection[int], hosts: Mapping[int, str]) -> str:
    """Say after which label each running rank stands, those that are most alone first; "" if none has set any.

    `hosts`: by rank, told of a rank that is alone somewhere.
    """
    places = _places(stands, running)
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


def stall(seconds: float, stands: Mapping[int, Stand], running: Collection[int], hosts: Mapping[int, str]) -> str:
    """One line for a run in which nothing goes on."""
    head = f"no news for {seconds:g} s"
    told = standing(stands, running, hosts)
    if not told:
        return f"{head}: no rank has set a label yet"
    apart = len(_places(stands, running)) > 1
    return f"{head}: {told}" + (": a rank that hangs in a collective?" if apart else "")


def groups(stands: Mapping[int, Stand]) -> list[tuple[Stand, list[int]]]:
    """Ranks that have come equally far, those with the fewest labels first."""
    found: dict[Stand, list[int]] = defaultdict(list)
    for rank, stand in sorted(stands.items()):
        found[stand].append(rank)
    return sorted(found.items(), key=lambda item: (item[0].labels, item[1]))


def _places(stands: Mapping[int, Stand], running: Collection[int]) -> dict[Stand | None, list[int]]:
    """Ranks by where they stand, the fewest first. How many labels led there does not count."""
    found: dict[Stand | None, list[int]] = defaultdict(list)
    for rank in sorted(running):
        stand = stands.get(rank)
        found[None if stand is None else Stand(0, stand.task, stand.last)].append(rank)
    return dict(sorted(found.items(), key=lambda item: (len(item[1]), item[1])))

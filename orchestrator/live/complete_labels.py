"""Recognition of labels that no rank will add to any more, from the order in which ranks label. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from aclcmp.labeling.shard.record import REFERENCE
from aclcmp.orchestrator.core.regions import LabelKey

Item = tuple[LabelKey, str]
"""One side of a label."""
_Front = tuple[int, int, int | None]

APART_SECONDS = 3.0
"""Seconds to wait for a rank whose labels are others than those of a label's holders: another pipeline stage."""
SILENT_SECONDS = 15.0
"""Seconds to wait for a rank that has set no label at all."""
NO_TASK = 1 << 62
"""Higher than any task."""
_LOOK_BACK = 128
_MOST_RIPE = 4096
"""Number of labels whose order is remembered after they were returned."""
_SIDES = {"pta", "acl"}
_ALL_SIDES = (*_SIDES, REFERENCE)


@dataclass(slots=True)
class _Rank:
    places: dict[int, dict[Item, int]] = field(default_factory=dict)
    """By task: the number of each item among all items that the rank labelled."""
    count: int = 0
    recent: deque[Item] = field(default_factory=lambda: deque(maxlen=_LOOK_BACK))
    task: int = -1
    """Its current task."""
    ended: bool = False


@dataclass(slots=True)
class _Waiting:
    since: float
    holders: dict[str, int] = field(default_factory=dict)
    """By side, the lowest rank that has the label."""


class LabelStreams:
    """The labels of all ranks, in the order in which each rank sets them.

    A label is ripe when it has both sides and every rank is past it: in the order of a rank that holds the label, the
    last label of every other rank does not come before it. A rank that has no label in common with the holder is waited
    for during some seconds only.
    """

    def __init__(self, ranks: Iterable[int]) -> None:
        self._ranks = {rank: _Rank() for rank in ranks}
        self._waiting: dict[LabelKey, _Waiting] = {}
        self._ripe: deque[LabelKey] = deque()

    def add(self, rank: int, key: LabelKey, side: str, now: float) -> None:
        """Note that a rank has set one side of a label. `now` is in seconds, of any monotonic clock."""
        known = self._ranks.setdefault(rank, _Rank())
        item = key, side
        places = known.places.setdefault(key.task, {})
        if item not in places:
            places[item] = known.count
            known.count += 1
        known.recent.append(item)
        known.task = max(known.task, key.task)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now)
        waiting.holders[side] = min(rank, waiting.holders.get(side, rank))

    def end(self, rank: int) -> None:
        """Note that a rank will label nothing more."""
        if rank in self._ranks:
            self._ranks[rank].ended = True

    def take_ripe(self, now: float, most: int, unheard: Collection[int] = ()) -> list[LabelKey]:
        """Return at most `most` ripe labels in the order in which they came, each once.

        A label that gets another side afterwards may come again. Ranks in `unheard` may have set labels that are not
        known here, so they are waited for without a limit.
        """
        ripe: list[LabelKey] = []
        fronts: dict[int, list[_Front]] = {}
        for key, waiting in self._waiting.items():
            if waiting.holders.keys() >= _SIDES and self._is_ripe(key, waiting, fronts, now, unheard):
                ripe.append(key)
                if len(ripe) >= most:
                    break
        for key in ripe:
            del self._waiting[key]
        self._ripe += ripe
        return ripe

    def drop(self, key: LabelKey) -> None:
        """Stop waiting for a label."""
        self._waiting.pop(key, None)

    def forget(self) -> list[LabelKey]:
        """Forget labels of tasks that all ranks have left; return the one-sided labels that were still waited for."""
        done = self.oldest_task
        alone = [key for key, one in self._waiting.items() if key.task < done and not one.holders.keys() >= _SIDES]
        for key in alone:
            del self._waiting[key]
        done = min([done, *(key.task for key in self._waiting)])
        for rank in self._ranks.values():
            for task in [task for task in rank.places if task < done]:
                del rank.places[task]
        while len(self._ripe) > _MOST_RIPE:
            key = self._ripe.popleft()
            for rank in self._ranks.values():
                for side in _ALL_SIDES if key.task in rank.places else ():
                    rank.places[key.task].pop((key, side), None)
        return alone

    def chains(self, task: int) -> list[list[LabelKey]]:
        """Return the labels of a task in the order of each rank."""
        return [
            list(dict.fromkeys(key for key, _ in rank.places[task]))
            for rank in self._ranks.values()
            if task in rank.places
        ]

    @property
    def oldest_task(self) -> int:
        """The earliest task of the ranks that have set a label and still run; NO_TASK where there is none."""
        return min((rank.task for rank in self._ranks.values() if rank.task >= 0 and not rank.ended), default=NO_TASK)

    def _is_ripe(
        self, key: LabelKey, waiting: _Waiting, fronts: dict[int, list[_Front]], now: float, unheard: Collection[int]
    ) -> bool:
        for side, holder in waiting.holders.items():
            if holder not in fronts:
                fronts[holder] = self._fronts(holder)
            place = self._ranks[holder].places[key.task][key, side]
            for rank, task, front in fronts[holder]:
                if task > key.task or (front is not None and front >= place):
                    continue
                patience = SILENT_SECONDS if task < 0 else APART_SECONDS
                if front is not None or rank in unheard or now - waiting.since < patience:
                    return False
        return True

    def _fronts(self, holder: int) -> list[_Front]:
        """Return each running rank, its task, and its place in the order of `holder` (None where it has no place)."""
        order = self._ranks[holder].places
        found: list[_Front] = []
        for number, rank in self._ranks.items():
            if not rank.ended and number != holder:
                places = (order.get(item[0].task, {}).get(item) for item in reversed(rank.recent))
                found.append((number, rank.task, next((place for place in places if place is not None), None)))
        return found

"""Parts of a second look at what does not match: which are done in the time for it, and their results together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.remote_reads import read_bytes
from aclcmp.orchestrator.compare.schedule import FETCH_BYTES, home, missing_reads, split
from aclcmp.orchestrator.core.diagnosis import NO_TIME, Look, Looks, Suspect
from aclcmp.orchestrator.core.regions import Pair

FREE_SECONDS = 1.0
"""Estimated work, in seconds of one core, that is done whatever the clock says: small runs are looked at in full."""
_SUMMED_PER_SECOND = 3e8
"""Numbers of a side that one core sums by channel and counts by size."""
_FITTED_PER_SECOND = 8e5
"""Numbers of an excerpt on which one core tries all fits."""


@dataclass(frozen=True, slots=True)
class LookPart:
    """Arguments of one call: a part of a pair, or an excerpt."""

    number: int
    """Number of the suspect to which it belongs."""
    place: int
    """Place among the parts of the suspect."""
    suspect: Suspect

    @property
    def pair(self) -> Pair:
        """One of its pairs."""
        return (self.suspect.pairs or self.suspect.excerpt)[0]


class LookSchedule:
    """Suspects that are looked at in the time that there is, and the findings.

    Suspects whose estimated work is beyond the time are left out before the start, or only fits are tried on them. When
    the time is over by the clock, no further suspect is begun.
    """

    def __init__(self, suspects: Sequence[Suspect], places: FileLocations, seconds: float, cores: int) -> None:
        """Take the suspects, the most telling first, and how many seconds so many cores have for them.

        At most FETCH_BYTES travel for a part; an excerpt that needs more is skipped.
        """
        self._suspects = suspects
        self._found: dict[int, list[Look | str | None]] = {}
        self._begun: dict[int, bool] = {}
        self.parts: list[LookPart] = []
        """All parts, in the order in which they are to be begun."""
        work, most = 0.0, max(seconds * cores, FREE_SECONDS)
        for number, suspect in enumerate(suspects):
            chosen = next((each for each in (suspect, replace(suspect, pairs=())) if work + _work(each) <= most), None)
            split_up = list(_split(chosen, places)) if chosen is not None else []
            if chosen is None or not split_up:
                continue
            work += _work(chosen)
            if work <= FREE_SECONDS:
                self._begun[number] = True
            self._found[number] = [None] * len(split_up)
            self.parts += [LookPart(number, place, part) for place, part in enumerate(split_up)]
        self._deadline = time.monotonic() + seconds

    def begin(self, part: LookPart) -> bool:
        """Tell whether a part is to be done. All parts of a suspect that was begun in time are."""
        return self._begun.setdefault(part.number, time.monotonic() < self._deadline)

    def add(self, part: LookPart, result: Look | str) -> int:
        """Take the result of a part; return how many suspects are complete with it.

        An excerpt that failed counts as one without fits, if there are other parts.
        """
        found = self._found[part.number]
        no_fits = part.suspect.excerpt and len(found) > 1 and isinstance(result, str)
        found[part.place] = Look.empty() if no_fits else result
        return int(None not in found and self._begun[part.number])

    def looks(self) -> Looks:
        """Return what was found, in the order of the suspects: NO_TIME for those left out, none for incomplete ones."""
        looks: Looks = {}
        for number, suspect in enumerate(self._suspects):
            results = self._found.get(number)
            if results is None or not self._begun.get(number, True):
                looks[suspect.name] = NO_TIME
                continue
            complete = [each for each in results if each is not None]
            if len(complete) == len(results):
                looks[suspect.name] = reduce(_merge, complete)
        return looks


def _work(suspect: Suspect) -> float:
    """Estimate how many seconds of one core it takes to look at a suspect."""
    summed, fitted = (sum(pair.region.size for pair in pairs) for pairs in (suspect.pairs, suspect.excerpt))
    return summed / _SUMMED_PER_SECOND + fitted / _FITTED_PER_SECOND


def _split(suspect: Suspect, places: FileLocations) -> Iterator[Suspect]:
    """Yield the excerpt of a suspect, and its pairs, large ones in parts."""
    if suspect.excerpt and _bytes_to_fetch(suspect.excerpt, places) <= FETCH_BYTES:
        yield replace(suspect, pairs=())
    for pair in suspect.pairs:
        for part in split(pair, _bytes_to_fetch([pair], places)):
            yield replace(suspect, pairs=(part,), excerpt=())


def _merge(one: Look | str, other: Look | str) -> Look | str:
    if isinstance(one, Look):
        return one.merge(other) if isinstance(other, Look) else other
    return one


def _bytes_to_fetch(pairs: Sequence[Pair], places: FileLocations) -> int:
    node = home(pairs[0], places)
    return sum(read_bytes(read) for reads in missing_reads(pairs, node, places).values() for read in reads)

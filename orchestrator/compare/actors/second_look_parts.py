"""What is looked at again, cut to what one call of an actor does, and put together afterwards. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aclcmp.orchestrator.cluster.file_locations import Places
from aclcmp.orchestrator.compare.actors.remote_reads import read_bytes
from aclcmp.orchestrator.compare.actors.schedule import FETCH_BYTES, away, home, split
from aclcmp.orchestrator.core.diagnosis import Look, Looks, Suspect
from aclcmp.orchestrator.core.regions import Pair


def parts(suspects: Sequence[Suspect], places: Places) -> Iterator[Suspect]:
    """Yield the calls of actors that look at all suspects: each pair, large ones in parts, and each excerpt.

    What travels for a call is at most FETCH_BYTES; an excerpt of which more would travel is not looked at.
    """
    for suspect in suspects:
        for pair in suspect.pairs:
            for part in split(pair, _travels([pair], places)):
                yield Suspect((part,), suspect.rms)
        if suspect.excerpt and _travels(suspect.excerpt, places) <= FETCH_BYTES:
            yield Suspect((), suspect.rms, suspect.excerpt)


def merged(suspects: Sequence[Suspect], places: Places, done: Sequence[tuple[Suspect, Look | str]]) -> Looks:
    """Put together what came of the parts; a suspect of which a part is not done is left out.

    Where the excerpt alone could not be looked at the rest is told.
    """
    left: dict[object, int] = {}
    for part in parts(suspects, places):
        left[part.name] = left.get(part.name, 0) + 1
    found: Looks = {}
    for part, look in done:
        left[part.name] -= 1
        before = found.get(part.name, Look.empty())
        if isinstance(look, str) and not part.excerpt:
            found[part.name] = look
        elif isinstance(look, Look) and isinstance(before, Look):
            found[part.name] = before.merge(look)
    return {name: look for name, look in found.items() if left[name] == 0}


def _travels(pairs: Sequence[Pair], places: Places) -> int:
    node = home(pairs[0], places)
    return sum(read_bytes(read) for reads in away(pairs, node, places).values() for read in reads)

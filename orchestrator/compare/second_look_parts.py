"""Parts of a second look at what does not match, and their results together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.remote_reads import read_bytes
from aclcmp.orchestrator.compare.schedule import FETCH_BYTES, home, missing_reads, split
from aclcmp.orchestrator.core.diagnosis import Look, Looks, Suspect
from aclcmp.orchestrator.core.regions import Pair


def parts(suspects: Sequence[Suspect], places: FileLocations) -> Iterator[Suspect]:
    """Yield the arguments of all calls: each pair of all suspects, large ones in parts, and each excerpt.

    At most FETCH_BYTES travel for a call; an excerpt that needs more is skipped.
    """
    for suspect in suspects:
        for pair in suspect.pairs:
            for part in split(pair, _bytes_to_fetch([pair], places)):
                yield Suspect((part,), suspect.rms)
        if suspect.excerpt and _bytes_to_fetch(suspect.excerpt, places) <= FETCH_BYTES:
            yield Suspect((), suspect.rms, suspect.excerpt)


def merge_looks(
    suspects: Sequence[Suspect], places: FileLocations, done: Sequence[tuple[Suspect, Look | str]]
) -> Looks:
    """Merge the results of the parts; a suspect with a missing part is left out.

    If only the excerpt failed, the other parts are returned.
    """
    missing: dict[object, int] = {}
    for part in parts(suspects, places):
        missing[part.name] = missing.get(part.name, 0) + 1
    found: Looks = {}
    for part, look in done:
        missing[part.name] -= 1
        before = found.get(part.name, Look.empty())
        if isinstance(look, str) and not part.excerpt:
            found[part.name] = look
        elif isinstance(look, Look) and isinstance(before, Look):
            found[part.name] = before.merge(look)
    return {name: look for name, look in found.items() if missing[name] == 0}


def _bytes_to_fetch(pairs: Sequence[Pair], places: FileLocations) -> int:
    node = home(pairs[0], places)
    return sum(read_bytes(read) for reads in missing_reads(pairs, node, places).values() for read in reads)

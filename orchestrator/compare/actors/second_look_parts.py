"""Second look at what does not match: split into calls of actors, and merged from their answers."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.remote_reads import read_bytes
from aclcmp.orchestrator.compare.actors.schedule import FETCH_BYTES, home, missing_reads, split
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot
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


def look_again(pool: ActorPool, suspects: Sequence[Suspect], places: FileLocations) -> Looks:
    """Take a second look at what does not match; return the finding, or a message why there is none, by (label, rank).

    `places` as in `compare_pairs`. If an actor dies, its call is repeated once by another. On KeyboardInterrupt only
    finished findings are returned.
    """
    import ray
    from ray.exceptions import RayActorError, RayError

    places = pool.drop_lost_nodes(places)
    waiting: dict[str, deque[tuple[Suspect, bool]]] = defaultdict(deque)
    for part in parts(suspects, places):
        waiting[home((part.pairs or part.excerpt)[0], places)].append((part, False))
    idle = {node: list(pool.comparers(node)) for node in waiting}
    running: dict[Any, tuple[Suspect, bool, str, ActorSlot]] = {}
    done: list[tuple[Suspect, Look | str]] = []
    with suppress(KeyboardInterrupt):
        while any(waiting.values()) or running:
            for node, work in waiting.items():
                while work and idle[node]:
                    slot, (part, again) = idle[node].pop(), work.popleft()
                    call = slot.actor.look.remote(part, *_fetch(pool, part, node, places))
                    running[call] = part, again, node, slot
            (call,), _ = ray.wait(list(running), num_returns=1)
            part, again, node, slot = running.pop(call)
            try:
                done.append((part, ray.get(call)))
            except RayError as error:
                if isinstance(error, RayActorError):
                    slot.actor = pool.start(node)
                pool.forget_readers()  # or a reader died
                if again:
                    done.append((part, f"host {pool.hosts[node]}: {type(error).__name__}"))
                else:
                    waiting[node].append((part, True))
            idle[node].append(slot)
    return merge_looks(suspects, places, done)


def _fetch(pool: ActorPool, part: Suspect, node: str, places: FileLocations) -> list[Any]:
    """Start reading the data of a part that lies on other nodes; return references to it."""
    needed = missing_reads([*part.pairs, *part.excerpt], node, places)
    readers = {holder: min(pool.readers(holder), key=lambda slot: slot.calls) for holder in needed}
    return [readers[holder].actor.read.options(num_returns=2).remote(reads)[1] for holder, reads in needed.items()]

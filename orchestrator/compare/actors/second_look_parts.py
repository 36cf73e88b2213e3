"""A second look at what does not match: cut into calls of actors, asked of them, and put together."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.remote_reads import read_bytes
from aclcmp.orchestrator.compare.actors.schedule import FETCH_BYTES, away, home, split
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot
from aclcmp.orchestrator.core.diagnosis import Look, Looks, Suspect
from aclcmp.orchestrator.core.regions import Pair


def parts(suspects: Sequence[Suspect], places: FileLocations) -> Iterator[Suspect]:
    """Yield the calls of actors that look at all suspects: each pair, large ones in parts, and each excerpt.

    What travels for a call is at most FETCH_BYTES; an excerpt of which more would travel is not looked at.
    """
    for suspect in suspects:
        for pair in suspect.pairs:
            for part in split(pair, _travels([pair], places)):
                yield Suspect((part,), suspect.rms)
        if suspect.excerpt and _travels(suspect.excerpt, places) <= FETCH_BYTES:
            yield Suspect((), suspect.rms, suspect.excerpt)


def merged(suspects: Sequence[Suspect], places: FileLocations, done: Sequence[tuple[Suspect, Look | str]]) -> Looks:
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


def _travels(pairs: Sequence[Pair], places: FileLocations) -> int:
    node = home(pairs[0], places)
    return sum(read_bytes(read) for reads in away(pairs, node, places).values() for read in reads)


def look_again(pool: ActorPool, suspects: Sequence[Suspect], places: FileLocations) -> Looks:
    """Look again at what does not match; return what was found for each (label, rank), or why nothing was.

    `places` as in `compare_pairs`. What an actor left undone because it died is done by another, once. On
    KeyboardInterrupt what is done is returned; what is not finished is then absent.
    """
    import ray
    from ray.exceptions import RayActorError, RayError

    places = pool.left(places)
    waiting: dict[str, deque[tuple[Suspect, bool]]] = defaultdict(deque)
    for part in parts(suspects, places):
        waiting[home((part.pairs or part.excerpt)[0], places)].append((part, False))
    idle = {node: list(pool.comparing(node)) for node in waiting}
    running: dict[Any, tuple[Suspect, bool, str, ActorSlot]] = {}
    done: list[tuple[Suspect, Look | str]] = []
    with suppress(KeyboardInterrupt):
        while any(waiting.values()) or running:
            for node, work in waiting.items():
                while work and idle[node]:
                    post, (part, again) = idle[node].pop(), work.popleft()
                    call = post.actor.look.remote(part, *_fetched(pool, part, node, places))
                    running[call] = part, again, node, post
            (call,), _ = ray.wait(list(running), num_returns=1)
            part, again, node, post = running.pop(call)
            try:
                done.append((part, ray.get(call)))
            except RayError as error:
                if isinstance(error, RayActorError):
                    post.actor = pool.start(node)
                pool.forget_readers()  # or a reader died
                if again:
                    done.append((part, f"host {pool.hosts[node]}: {type(error).__name__}"))
                else:
                    waiting[node].append((part, True))
            idle[node].append(post)
    return merged(suspects, places, done)


def _fetched(pool: ActorPool, part: Suspect, node: str, places: FileLocations) -> list[Any]:
    """References to what of a part lies on other nodes."""
    needed = away([*part.pairs, *part.excerpt], node, places)
    readers = {holder: min(pool.reading(holder), key=lambda post: post.calls) for holder in needed}
    return [readers[holder].actor.read.options(num_returns=2).remote(reads)[1] for holder, reads in needed.items()]

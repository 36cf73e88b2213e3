"""Second look at what does not match, by the actors of a pool."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot
from aclcmp.orchestrator.compare.schedule import home, missing_reads
from aclcmp.orchestrator.compare.second_look_parts import merge_looks, parts
from aclcmp.orchestrator.core.diagnosis import Look, Looks, Suspect


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

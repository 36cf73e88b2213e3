"""Second look at what does not match, by the actors of a pool."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot
from aclcmp.orchestrator.compare.schedule import home, missing_reads
from aclcmp.orchestrator.compare.second_look_parts import LookPart, LookSchedule
from aclcmp.orchestrator.core.diagnosis import Looks, Suspect


def look_again(
    pool: ActorPool,
    suspects: Sequence[Suspect],
    places: FileLocations,
    seconds: float,
    advance: Callable[[int], None],
) -> Looks:
    """Take a second look as `Comparer.look_again` has it, by the actors of a pool.

    `places` as in `compare_pairs`. If an actor dies, its call is repeated once by another. On KeyboardInterrupt only
    finished findings are returned.
    """
    import ray
    from ray.exceptions import RayActorError, RayError

    places = pool.drop_lost_nodes(places)
    schedule = LookSchedule(suspects, places, seconds, sum(pool.cores.values()))
    waiting: dict[str, deque[tuple[LookPart, bool]]] = defaultdict(deque)
    for part in schedule.parts:
        waiting[home(part.pair, places)].append((part, False))
    idle = {node: list(pool.comparers(node)) for node in waiting}
    running: dict[Any, tuple[LookPart, bool, str, ActorSlot]] = {}
    with suppress(KeyboardInterrupt):
        while True:
            for node, work in waiting.items():
                while work and idle[node]:
                    part, again = work.popleft()
                    if schedule.begin(part):
                        slot = idle[node].pop()
                        call = slot.actor.look.remote(part.suspect, *_fetch(pool, part.suspect, node, places))
                        running[call] = part, again, node, slot
            if not running:
                break
            (call,), _ = ray.wait(list(running), num_returns=1)
            part, again, node, slot = running.pop(call)
            try:
                advance(schedule.add(part, ray.get(call)))
            except RayError as error:
                if isinstance(error, RayActorError):
                    slot.actor = pool.start(node)
                pool.forget_readers()  # or a reader died
                if again:
                    advance(schedule.add(part, f"host {pool.hosts[node]}: {type(error).__name__}"))
                else:
                    waiting[node].append((part, True))
            idle[node].append(slot)
    return schedule.looks()


def _fetch(pool: ActorPool, suspect: Suspect, node: str, places: FileLocations) -> list[Any]:
    """Start reading the data of a suspect that lies on other nodes; return references to it."""
    needed = missing_reads([*suspect.pairs, *suspect.excerpt], node, places)
    readers = {holder: min(pool.readers(holder), key=lambda slot: slot.calls) for holder in needed}
    return [readers[holder].actor.read.options(num_returns=2).remote(reads)[1] for holder, reads in needed.items()]

"""Assignment of work while pairs are compared: slots of actors, queues of nodes, tasks and calls. Does not use Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aclcmp.orchestrator.compare.remote_reads import Read
from aclcmp.orchestrator.core.regions import Pair

CALLS_PER_ACTOR = 2
"""One call runs while another waits or is being fetched for, so that the actor never idles."""


@dataclass(slots=True, eq=False)
class ActorSlot:
    """Slot of an actor, which is replaced when it dies, and the number of calls that it has."""

    actor: Any
    calls: int = 0


@dataclass(slots=True, eq=False)
class NodeQueue:
    """Actors of a node that do one kind of work, and the work that waits for them."""

    node: str
    slots: list[ActorSlot]
    begin: Callable[[NodeQueue, ActorSlot, Any], None]
    """Assigns one waiting item to a slot."""
    waiting: deque[Any] = field(default_factory=deque)
    calls_per_actor: int = CALLS_PER_ACTOR
    """Most calls per actor. It becomes 1 when an actor has died, to find the call that kills, and lose no others."""

    def __post_init__(self) -> None:
        for slot in self.slots:
            slot.calls = 0  # calls of an interrupted comparison do not count

    def feed(self) -> None:
        """Assign waiting work until all actors have as many calls as they may."""
        while self.waiting:
            slot = min(self.slots, key=lambda slot: slot.calls)
            if slot.calls >= self.calls_per_actor:
                return
            self.begin(self, slot, self.waiting.popleft())


@dataclass(slots=True, eq=False)
class Task:
    """Batch that the actor of a slot compares as soon as the data from other nodes has arrived."""

    queue: NodeQueue
    slot: ActorSlot
    batch: list[Pair]
    missing: int = 0
    """Number of nodes whose data has not arrived yet."""
    fetched: list[Any] = field(default_factory=list)
    """References to the fetched data."""
    is_over: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Call of the actor of a slot; `alone`: the actor has no other call."""

    task: Task
    queue: NodeQueue
    slot: ActorSlot
    actor: Any
    alone: bool
    reads: Sequence[Read] = ()
    """Regions that are read for the task; empty if the call is the comparison."""
    data: Any = None
    """Reference to the data that is read."""

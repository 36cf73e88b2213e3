"""Who has which work while pairs are compared: posts for actors, teams of them, tasks and calls. Knows no Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aclcmp.orchestrator.compare.actors.remote_reads import Read
from aclcmp.orchestrator.core.regions import Pair

CALLS_PER_ACTOR = 2
"""One runs, one waits or is fetched for: the actor never idles between them."""


@dataclass(slots=True, eq=False)
class ActorSlot:
    """A place for an actor, where another takes over when it dies, and how many calls it has."""

    actor: Any
    calls: int = 0


@dataclass(slots=True, eq=False)
class NodeQueue:
    """The actors of a node that do one kind of work, and the work that waits for them."""

    node: str
    posts: list[ActorSlot]
    begin: Callable[[NodeQueue, ActorSlot, Any], None]
    """Give a post one of what waits."""
    waiting: deque[Any] = field(default_factory=deque)
    most: int = CALLS_PER_ACTOR
    """Calls per actor. When one has died it is one, so that what kills its actor is known and takes nothing along."""

    def __post_init__(self) -> None:
        for post in self.posts:
            post.calls = 0  # those of a comparison that was interrupted do not count

    def feed(self) -> None:
        """Begin as much of what waits as the actors may have."""
        while self.waiting:
            post = min(self.posts, key=lambda post: post.calls)
            if post.calls >= self.most:
                return
            self.begin(self, post, self.waiting.popleft())


@dataclass(slots=True, eq=False)
class Task:
    """A batch that the actor at a post will compare when what it needs from other nodes is there."""

    team: NodeQueue
    post: ActorSlot
    batch: list[Pair]
    asked: int = 0
    """How many nodes have been asked for something and have not answered."""
    fetched: list[Any] = field(default_factory=list)
    """References to what was fetched."""
    over: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call of the actor at a post of a team; `alone`: it has no other call."""

    task: Task
    team: NodeQueue
    post: ActorSlot
    actor: Any
    alone: bool
    reads: Sequence[Read] = ()
    """What is read for the task; nothing if the call is the comparison."""
    found: Any = None
    """Reference to what is read."""

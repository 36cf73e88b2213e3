"""One comparison on its way through the actors of a pool: batches go out, statistics or reasons come back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.outcomes import OutcomeCollector
from aclcmp.orchestrator.compare.actors.remote_reads import Read
from aclcmp.orchestrator.compare.actors.schedule import away, batches, home, pair_bytes, spread
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot, Call, NodeQueue, Task
from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats

if TYPE_CHECKING:
    from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool


class Comparison:
    """What waits, what runs, and what came of it."""

    def __init__(
        self, pool: ActorPool, pairs: Sequence[Pair], places: FileLocations, advance: Callable[[int, int], None]
    ) -> None:
        """Take the arguments of `compare_pairs`; nothing is begun yet."""
        self.outcomes = OutcomeCollector(pairs)
        self._pool = pool
        self._places = places
        self._advance = advance
        self._teams: dict[str, NodeQueue] = {}
        for node, work in spread(pairs, places, pool.cores).items():
            self._team(node).waiting.extend(batches(work, node, places))
        self._readers: dict[str, NodeQueue] = {}
        self._running: dict[Any, Call] = {}

    def _team(self, node: str) -> NodeQueue:
        if node not in self._teams:
            self._teams[node] = NodeQueue(node, self._pool.comparing(node), self._begin)
        return self._teams[node]

    def run(self) -> None:
        """Work until nothing is left."""
        import ray
        from ray.exceptions import RayError

        for team in self._teams.values():
            team.feed()
        while self._running:
            (done,), _ = ray.wait(list(self._running), num_returns=1)
            call = self._running.pop(done)
            try:
                result = ray.get(done)
            except RayError as error:
                self._failed(call, error)
            else:
                self._succeeded(call, result)
            call.team.feed()
            call.task.team.feed()

    def _begin(self, team: NodeQueue, post: ActorSlot, batch: list[Pair]) -> None:
        """Compare a batch, or ask for what it needs from other nodes."""
        task = Task(team, post, batch)
        post.calls += 1
        needed = away(batch, team.node, self._places)
        task.asked = len(needed)
        for node, reads in needed.items():
            if node not in self._readers:
                self._readers[node] = NodeQueue(node, self._pool.reading(node), self._read)
            self._readers[node].waiting.append((task, reads))
            self._readers[node].feed()
        if not needed:
            self._compare(task)

    def _read(self, team: NodeQueue, post: ActorSlot, wanted: tuple[Task, list[Read]]) -> None:
        task, reads = wanted
        if task.over:
            return
        post.calls += 1
        receipt, found = post.actor.read.options(num_returns=2).remote(reads)
        self._call(receipt, task, team, post, reads, found)

    def _compare(self, task: Task) -> None:
        done = task.post.actor.compare.remote(task.batch, *task.fetched)
        self._call(done, task, task.team, task.post)

    def _call(
        self, done: Any, task: Task, team: NodeQueue, post: ActorSlot, reads: Sequence[Read] = (), found: Any = None
    ) -> None:
        alone = team.most == post.calls == 1
        self._running[done] = Call(task, team, post, post.actor, alone, reads, found)

    def _succeeded(self, call: Call, result: Any) -> None:
        task = call.task
        if not call.reads:
            self._end(task)
            self._tell(task.batch, result)
            return
        call.post.calls -= 1
        task.fetched.append(call.found)
        task.asked -= 1
        if not task.asked and not task.over:
            self._compare(task)

    def _failed(self, call: Call, error: Exception) -> None:
        """Do again what can be done again, pair by pair; tell what fails alone, or for want of the node that has it."""
        from ray.exceptions import ActorUnschedulableError, RayActorError

        task = call.task
        call.team.most = 1
        died = isinstance(error, RayActorError)
        if died and call.post.actor is call.actor:
            call.post.actor = self._pool.start(call.team.node)
        if call.reads:
            call.post.calls -= 1
        if task.over:
            return
        self._end(task)
        if isinstance(error, ActorUnschedulableError) or (died and self._pool.is_lost(call.team.node)):
            self._move(task.batch, call.team.node, self._words(call, error))
        elif call.alone and len(task.batch) == 1:
            self._tell(task.batch, [self._words(call, error)])
        else:
            task.team.waiting.extendleft([pair] for pair in reversed(task.batch))

    def _move(self, pairs: Sequence[Pair], lost: str, why: str) -> None:
        """Compare without a node that is lost: where another sees the same files, else it is told why not."""
        self._pool.lost.add(lost)
        self._places = places = self._places.without(lost)
        kept: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            if any(places.home(source.rank) == lost for source in pair.sources):
                self._tell([pair], [why])
            else:
                kept[home(pair, places)].append(pair)
        for node, left in kept.items():
            team = self._team(node)
            team.waiting.extend(batches(left, node, places))
            team.feed()

    def _end(self, task: Task) -> None:
        task.over = True
        task.post.calls -= 1

    def _tell(self, pairs: Sequence[Pair], results: Sequence[PairStats | str]) -> None:
        self._advance(self.outcomes.add(pairs, results), sum(map(pair_bytes, pairs)))

    def _words(self, call: Call, error: Exception) -> str:
        from ray.exceptions import ObjectLostError

        host, name = self._pool.hosts[call.team.node], type(error).__name__
        if call.reads:
            files = ", ".join(dict.fromkeys(source.path for source, _ in call.reads))
            return f"host {host}: {files} cannot be fetched: {name}"
        if isinstance(error, ObjectLostError):
            return f"what host {host} needed from others was lost on the way: {name}"
        return f"its compare actor on host {host} died: {name}"


def compare_pairs(
    pool: ActorPool, pairs: Sequence[Pair], places: FileLocations, advance: Callable[[int, int], None]
) -> Outcomes:
    """Compare all pairs, each where most of it lies; return each (label, rank)'s statistics or why it has none.

    `places` tells where the labels of a rank are read. `advance(how many (label, rank), bytes)` is called as parts
    of the work are done. On KeyboardInterrupt what is done is returned; what was not begun or not finished is then
    absent.
    """
    comparison = Comparison(pool, pairs, pool.left(places), advance)
    with suppress(KeyboardInterrupt):
        comparison.run()
    return comparison.outcomes.complete()


def count_ties(
    pool: ActorPool, questions: Sequence[TieQuestion], places: FileLocations
) -> dict[tuple[LabelKey, int], int]:
    """Ask where the ids lie how many that differ are ties; of what is lost or interrupted nothing is told."""
    places = pool.left(places)
    asked = [(places.home(question.ids.golden.rank), "count_ties", (question,)) for question in questions]
    found: dict[tuple[LabelKey, int], int] = {}
    with suppress(KeyboardInterrupt):
        for question, ties in zip(questions, pool.ask(asked), strict=True):
            if not isinstance(ties, str):
                found[question.ids.key, question.ids.rank] = ties
    return found

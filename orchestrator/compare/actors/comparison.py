"""One comparison by the actors of a pool: batches go out, statistics or reasons come back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot, Call, NodeQueue, Task
from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.compare.remote_reads import Read
from aclcmp.orchestrator.compare.schedule import batches, home, missing_reads, pair_bytes, spread
from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes, PairStats

if TYPE_CHECKING:
    from aclcmp.orchestrator.compare.actors.actor_pool import ActorPool


class Comparison:
    """State of a comparison: waiting batches, running calls, and outcomes."""

    def __init__(
        self, pool: ActorPool, pairs: Sequence[Pair], places: FileLocations, advance: Callable[[int, int], None]
    ) -> None:
        """Take the arguments of `compare_pairs`; `run` starts the work."""
        self.outcomes = OutcomeCollector(pairs)
        self._pool = pool
        self._places = places
        self._advance = advance
        self._queues: dict[str, NodeQueue] = {}
        for node, work in spread(pairs, places, pool.cores).items():
            self._queue(node).waiting.extend(batches(work, node, places))
        self._readers: dict[str, NodeQueue] = {}
        self._running: dict[Any, Call] = {}

    def _queue(self, node: str) -> NodeQueue:
        if node not in self._queues:
            self._queues[node] = NodeQueue(node, self._pool.comparers(node), self._begin)
        return self._queues[node]

    def run(self) -> None:
        """Work until nothing is left."""
        import ray
        from ray.exceptions import RayError

        for queue in self._queues.values():
            queue.feed()
        while self._running:
            (done,), _ = ray.wait(list(self._running), num_returns=1)
            call = self._running.pop(done)
            try:
                result = ray.get(done)
            except RayError as error:
                self._on_error(call, error)
            else:
                self._on_result(call, result)
            call.queue.feed()
            call.task.queue.feed()

    def _begin(self, queue: NodeQueue, slot: ActorSlot, batch: list[Pair]) -> None:
        """Compare a batch, or first fetch what it needs from other nodes."""
        task = Task(queue, slot, batch)
        slot.calls += 1
        needed = missing_reads(batch, queue.node, self._places)
        task.missing = len(needed)
        for node, reads in needed.items():
            if node not in self._readers:
                self._readers[node] = NodeQueue(node, self._pool.readers(node), self._read)
            self._readers[node].waiting.append((task, reads))
            self._readers[node].feed()
        if not needed:
            self._compare(task)

    def _read(self, queue: NodeQueue, slot: ActorSlot, fetch: tuple[Task, list[Read]]) -> None:
        task, reads = fetch
        if task.is_over:
            return
        slot.calls += 1
        receipt, data = slot.actor.read.options(num_returns=2).remote(reads)
        self._call(receipt, task, queue, slot, reads, data)

    def _compare(self, task: Task) -> None:
        done = task.slot.actor.compare.remote(task.batch, *task.fetched)
        self._call(done, task, task.queue, task.slot)

    def _call(
        self, done: Any, task: Task, queue: NodeQueue, slot: ActorSlot, reads: Sequence[Read] = (), data: Any = None
    ) -> None:
        alone = queue.calls_per_actor == slot.calls == 1
        self._running[done] = Call(task, queue, slot, slot.actor, alone, reads, data)

    def _on_result(self, call: Call, result: Any) -> None:
        task = call.task
        if not call.reads:
            self._finish(task)
            self._record(task.batch, result)
            return
        call.slot.calls -= 1
        task.fetched.append(call.data)
        task.missing -= 1
        if not task.missing and not task.is_over:
            self._compare(task)

    def _on_error(self, call: Call, error: Exception) -> None:
        """Repeat a call pair by pair; record as failed a pair that fails alone, or whose node is lost."""
        from ray.exceptions import ActorUnschedulableError, RayActorError

        task = call.task
        call.queue.calls_per_actor = 1
        died = isinstance(error, RayActorError)
        if died and call.slot.actor is call.actor:
            call.slot.actor = self._pool.start(call.queue.node)
        if call.reads:
            call.slot.calls -= 1
        if task.is_over:
            return
        self._finish(task)
        if isinstance(error, ActorUnschedulableError) or (died and self._pool.is_lost(call.queue.node)):
            self._move(task.batch, call.queue.node, self._reason(call, error))
        elif call.alone and len(task.batch) == 1:
            self._record(task.batch, [self._reason(call, error)])
        else:
            task.queue.waiting.extendleft([pair] for pair in reversed(task.batch))

    def _move(self, pairs: Sequence[Pair], lost: str, why: str) -> None:
        """Move pairs away from a lost node: to nodes that see the same files, else record why they failed."""
        self._pool.lost.add(lost)
        self._places = places = self._places.without(lost)
        by_node: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            if any(places.home(source.rank) == lost for source in pair.sources):
                self._record([pair], [why])
            else:
                by_node[home(pair, places)].append(pair)
        for node, moved in by_node.items():
            queue = self._queue(node)
            queue.waiting.extend(batches(moved, node, places))
            queue.feed()

    def _finish(self, task: Task) -> None:
        task.is_over = True
        task.slot.calls -= 1

    def _record(self, pairs: Sequence[Pair], results: Sequence[PairStats | str]) -> None:
        self._advance(self.outcomes.add(pairs, results), sum(map(pair_bytes, pairs)))

    def _reason(self, call: Call, error: Exception) -> str:
        from ray.exceptions import ObjectLostError

        host, name = self._pool.hosts[call.queue.node], type(error).__name__
        if call.reads:
            files = ", ".join(dict.fromkeys(source.path for source, _ in call.reads))
            return f"host {host}: {files} cannot be fetched: {name}"
        if isinstance(error, ObjectLostError):
            return f"what host {host} needed from others was lost on the way: {name}"
        return f"its compare actor on host {host} died: {name}"


def compare_pairs(
    pool: ActorPool, pairs: Sequence[Pair], places: FileLocations, advance: Callable[[int, int], None]
) -> Outcomes:
    """Compare all pairs, each where most of its data lies; return statistics, or why there are none, by (label, rank).

    `places` tells where the labels of a rank are read. `advance(count of (label, rank), bytes)` is called as parts of
    the work are done. On KeyboardInterrupt only the outcomes that are complete are returned.
    """
    comparison = Comparison(pool, pairs, pool.drop_lost_nodes(places), advance)
    with suppress(KeyboardInterrupt):
        comparison.run()
    return comparison.outcomes.complete()


def count_ties(
    pool: ActorPool, questions: Sequence[TieQuestion], places: FileLocations
) -> dict[tuple[LabelKey, int], int]:
    """Count the ties of each question on the node of its ids. Questions that fail are left out."""
    places = pool.drop_lost_nodes(places)
    asked = [(places.home(question.ids.golden.rank), "count_ties", (question,)) for question in questions]
    found: dict[tuple[LabelKey, int], int] = {}
    for question, ties in zip(questions, pool.ask(asked), strict=True):
        if not isinstance(ties, str):
            found[question.ids.key, question.ids.rank] = ties
    return found

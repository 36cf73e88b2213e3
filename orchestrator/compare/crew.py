"""The compare actors of one comparison: started where the shards lie, fed in batches, replaced when they die."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.orchestrator.cluster import Node
from aclcmp.orchestrator.compare.actor import CompareActor
from aclcmp.orchestrator.compare.schedule import batches, pair_bytes
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.plan.regions import LabelKey, Pair
from aclcmp.orchestrator.rundir import RunDir

Outcomes = dict[tuple[LabelKey, int], PairStats | str]

_CALLS_PER_ACTOR = 2  # one runs, one waits: the actor never idles between them
_MOST_PER_NODE = 16  # beyond this the memory bandwidth of a host is used up


@dataclass(frozen=True, slots=True)
class _Call:
    """A batch that an actor works on, or that waits for it; `alone`: the actor has no other call."""

    node: str
    actor: Any
    batch: list[Pair]
    alone: bool


class Crew:
    """Compare actors on the nodes of a cluster."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Prepare actors on `nodes`, one per core; they start when they are first needed."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._hosts = {node.node_id: node.host for node in nodes}
        remote = ray.remote(CompareActor)

        def start(node: str) -> Any:
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            return remote.options(num_cpus=0, scheduling_strategy=strategy).remote()

        self._start: Callable[[str], Any] = start
        self._cores = {node.node_id: min(max(node.cpus, 1), _MOST_PER_NODE) for node in nodes}
        self._started: dict[str, list[Any]] = {}

    @property
    def _actors(self) -> dict[str, list[Any]]:
        """The actors of every node."""
        if not self._started:
            self._started = {node: [self._start(node) for _ in range(cores)] for node, cores in self._cores.items()}
        return self._started

    def read_indices(self, run: RunDir) -> dict[str, tuple[list[ShardIndex], list[str]]]:
        """Index the shards of a run on every node, by node id; also say in words which could not be read."""
        import ray
        from ray.exceptions import RayError

        found: dict[str, tuple[list[ShardIndex], list[str]]] = {}
        calls = {node: actors[0].read_indices.remote(run) for node, actors in self._actors.items()}
        for node, call in calls.items():
            try:
                found[node] = ray.get(call)
            except RayError as error:
                found[node] = [], [f"the shards on host {self._hosts[node]} cannot be read: {type(error).__name__}"]
        return found

    def remove_dumps(self, files: Mapping[str, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete dumped files, given by node id, below `within`; return how many files and bytes went."""
        import ray
        from ray.exceptions import RayError

        count = nbytes = 0
        for call in [self._actors[node][0].remove_dumps.remote(paths, within) for node, paths in files.items()]:
            with suppress(RayError):  # what is left there is told by the count
                removed = ray.get(call)
                count, nbytes = count + removed[0], nbytes + removed[1]
        return count, nbytes

    def compare(
        self, pairs: Sequence[Pair], node_of: Callable[[int], str], advance: Callable[[int, int], None]
    ) -> Outcomes:
        """Compare all pairs, each on `node_of(rank)`; return each (label, rank)'s statistics or why it has none.

        `advance(how many (label, rank), bytes)` is called as parts of the work are done. On KeyboardInterrupt what is
        done is returned; what was not begun or not finished is then absent.
        """
        import ray
        from ray.exceptions import RayError

        by_node: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            by_node[node_of(pair.rank)].append(pair)
        outcomes = _Collected(pairs)
        queues = {node: deque(batches(work)) for node, work in by_node.items()}
        calls = dict.fromkeys(queues, _CALLS_PER_ACTOR)
        running: dict[Any, _Call] = {}
        replaced: dict[Any, Any] = {}

        def feed(node: str, actor: Any) -> None:
            while queues[node] and sum(call.actor is actor for call in running.values()) < calls[node]:
                batch = queues[node].popleft()
                running[actor.compare.remote(batch)] = _Call(node, actor, batch, alone=calls[node] == 1)

        for node, queue in queues.items():
            for actor in self._actors[node][: len(queue)]:
                feed(node, actor)
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                call = running.pop(done)
                node, actor, batch = call.node, call.actor, call.batch
                try:
                    results = ray.get(done)
                except RayError as error:
                    # Reading can be done again: from now on one call at a time, pair by pair, so that the one that
                    # kills its actor is known and takes no other along.
                    calls[node] = 1
                    if call.actor not in replaced:
                        replaced[call.actor] = self._start(node)
                    actor = replaced[call.actor]
                    if len(batch) == 1 and call.alone:
                        results = [f"its compare actor on host {self._hosts[node]} died: {type(error).__name__}"]
                    else:
                        results = []
                        queues[node].extendleft([pair] for pair in reversed(batch))
                if results:
                    advance(outcomes.add(batch, results), sum(map(pair_bytes, batch)))
                feed(node, actor)
        except KeyboardInterrupt:
            pass
        return outcomes.finished()


class _Collected:
    """Outcomes by (label, rank); its pairs, and the parts of one that was split, are merged as they come."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._left: dict[tuple[LabelKey, int], int] = defaultdict(int)
        for pair in pairs:
            self._left[pair.key, pair.rank] += pair.region.size
        self._outcomes: Outcomes = {}

    def add(self, batch: Sequence[Pair], results: Sequence[PairStats | str]) -> int:
        """Take the results of a batch; return how many (label, rank) are complete with them."""
        complete = 0
        for pair, result in zip(batch, results, strict=True):
            name = (pair.key, pair.rank)
            before = self._outcomes.get(name)
            if isinstance(before, PairStats) and isinstance(result, PairStats):
                result = before.merge(result)
            self._outcomes[name] = before if isinstance(before, str) else result
            self._left[name] -= pair.region.size
            complete += self._left[name] == 0
        return complete

    def finished(self) -> Outcomes:
        """Return the outcomes of those that are complete."""
        return {name: outcome for name, outcome in self._outcomes.items() if self._left[name] == 0}


def nodes_of_ranks(places: Mapping[int, tuple[str, str, str]], nodes: Sequence[Node]) -> dict[int, str]:
    """Map ranks to the current node that holds their shards.

    `places` gives each rank's (node id, ip, host) when it ran. Node ids change when a node comes back, so one with the
    same ip and host will do; failing that, the first node (the driver's).
    """
    found = {}
    for rank, (node_id, ip, host) in places.items():
        same = [node.node_id for node in nodes if node.node_id == node_id]
        alike = [node.node_id for node in nodes if (node.ip, node.host) == (ip, host)]
        found[rank] = (same or alike or [nodes[0].node_id])[0]
    return found

"""The compare actors of one comparison: started where the shards lie, fed in batches, replaced when they die.

Where something of a batch lies on other nodes, readers there put it into Ray's object store first; then the compare
actor is called with references to it. Ray takes the bytes from node to node; only what is below 100 KiB it hands over
with the calls, by way of the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot
from aclcmp.orchestrator.run.directory import RunDir

_MOST_PER_NODE = 16  # beyond this the memory bandwidth of a host is used up
_CORES_PER_READER = 4  # each reads 0.5 to 4 GB/s, columns slower than rows


class ActorPool:
    """Compare actors on the nodes of a cluster, and readers on those from which something travels."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Prepare actors on `nodes`, one per core; they start when they are first needed."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.hosts = {node.node_id: node.host for node in nodes}
        remote = ray.remote(CompareActor)

        def start(node: str) -> Any:
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            return remote.options(num_cpus=0, scheduling_strategy=strategy).remote()

        self.start: Callable[[str], Any] = start
        """Start an actor on a node."""
        self.cores = {node.node_id: min(max(node.cpus, 1), _MOST_PER_NODE) for node in nodes}
        """How many actors compare on each node."""
        self.lost: set[str] = set()
        """Nodes that were lost in a comparison; the next ones begin without them."""
        self._comparing: dict[str, list[ActorSlot]] = {}
        self._reading: dict[str, list[ActorSlot]] = {}

    def comparing(self, node: str) -> list[ActorSlot]:
        """The compare actors of a node, started when they are first asked for."""
        if node not in self._comparing:
            self._comparing[node] = self._posts(node, self.cores[node])
        return self._comparing[node]

    def reading(self, node: str) -> list[ActorSlot]:
        """The readers of a node. They never wait for another actor, so nothing can wait in a circle."""
        if node not in self._reading:
            self._reading[node] = self._posts(node, -(-self.cores[node] // _CORES_PER_READER))
        return self._reading[node]

    def forget_readers(self) -> None:
        """Start readers anew when they are next asked for: one may have died."""
        self._reading.clear()

    def is_lost(self, node: str) -> bool:
        """Whether Ray has given a node up."""
        import ray

        return not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())

    def left(self, places: FileLocations) -> FileLocations:
        """Return the places without the nodes that are lost."""
        return reduce(FileLocations.without, self.lost, places)

    def _posts(self, node: str, count: int) -> list[ActorSlot]:
        return [ActorSlot(self.start(node)) for _ in range(count)]

    def read_indices(
        self, run: RunDir, readers: Mapping[str, frozenset[int]]
    ) -> dict[str, tuple[list[ShardIndex], list[str]] | str]:
        """Index the shards of ranks of a run, each on the node that `readers` says; also what could not be read.

        Of a node that is lost it is told why, in words.
        """
        asked = [(node, "read_indices", (run, ranks)) for node, ranks in readers.items()]
        return dict(zip(readers, self.ask(asked), strict=True))

    def remove_dumps(self, files: Mapping[str, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete dumped files, given by node id, below `within`; return how many files and bytes went."""
        count = nbytes = 0
        for removed in self.ask([(node, "remove_dumps", (paths, within)) for node, paths in files.items()]):
            if not isinstance(removed, str):  # what is left there is told by the count
                count, nbytes = count + removed[0], nbytes + removed[1]
        return count, nbytes

    def ask(self, wanted: Sequence[tuple[str, str, tuple[Any, ...]]]) -> Iterator[Any]:
        """Call methods of actors, given by node, name and arguments; yield what each gave, or in words why nothing.

        What an actor left undone because it died is asked of another on that node, once.
        """
        import ray
        from ray.exceptions import RayActorError, RayError

        calls = []
        for number, (node, name, arguments) in enumerate(wanted):
            posts = self.comparing(node)
            post = posts[number % len(posts)]
            calls.append((post, post.actor, getattr(post.actor, name).remote(*arguments)))
        for (node, name, arguments), (post, actor, call) in zip(wanted, calls, strict=True):
            try:
                try:
                    yield ray.get(call)
                except RayActorError:
                    if post.actor is actor:
                        post.actor = self.start(node)
                    yield ray.get(getattr(post.actor, name).remote(*arguments))
            except RayError as error:
                yield f"host {self.hosts[node]} is lost: {type(error).__name__}"

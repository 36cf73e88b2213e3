"""Pool of compare actors, which are started where the shards lie and replaced when they die.

If data of a batch lies on other nodes, readers there first put it into Ray's object store; then the compare actor is
called with references to it. Ray moves the bytes from node to node; only data below 100 KiB goes with the calls,
through the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.actors.work_queue import ActorSlot
from aclcmp.orchestrator.compare.schedule import MOST_PER_HOST
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.shards import FoundShards

_CORES_PER_READER = 4  # each reads 0.5 to 4 GB/s, columns slower than rows


class ActorPool:
    """Compare actors on the nodes of a cluster, and readers on nodes from which data travels."""

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
        """Starts an actor on a node."""
        self.cores = {node.node_id: min(max(node.cpus, 1), MOST_PER_HOST) for node in nodes}
        """Number of compare actors of each node."""
        self.lost: set[str] = set()
        """Nodes that were lost in a comparison; later comparisons do without them."""
        self._comparers: dict[str, list[ActorSlot]] = {}
        self._readers: dict[str, list[ActorSlot]] = {}

    def comparers(self, node: str) -> list[ActorSlot]:
        """Return the compare actors of a node; the first call starts them."""
        if node not in self._comparers:
            self._comparers[node] = self._start_slots(node, self.cores[node])
        return self._comparers[node]

    def readers(self, node: str) -> list[ActorSlot]:
        """Return the readers of a node. They never wait for other actors, so that no deadlock is possible."""
        if node not in self._readers:
            self._readers[node] = self._start_slots(node, -(-self.cores[node] // _CORES_PER_READER))
        return self._readers[node]

    def forget_readers(self) -> None:
        """Forget all readers, since one may have died: the next call of `readers` starts new ones."""
        self._readers.clear()

    def is_lost(self, node: str) -> bool:
        """Tell whether Ray has given a node up."""
        import ray

        return not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())

    def drop_lost_nodes(self, places: FileLocations) -> FileLocations:
        """Return the locations without the nodes that are lost."""
        return reduce(FileLocations.without, self.lost, places)

    def _start_slots(self, node: str, count: int) -> list[ActorSlot]:
        return [ActorSlot(self.start(node)) for _ in range(count)]

    def read_indices(self, run: RunDir, ranks_by_node: Mapping[str, frozenset[int]]) -> dict[str, FoundShards | str]:
        """Index the shards of a run's ranks, each on its node; also tell which cannot be read.

        A node that is lost gets a message in place of its indices.
        """
        calls = [(node, "read_indices", (run, ranks)) for node, ranks in ranks_by_node.items()]
        return dict(zip(ranks_by_node, self.ask(calls), strict=True))

    def remove_dumps(self, files: Mapping[str, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete dumped files, given by node id, below `within`; return how many files and bytes were deleted."""
        count = nbytes = 0
        for removed in self.ask([(node, "remove_dumps", (paths, within)) for node, paths in files.items()]):
            if not isinstance(removed, str):  # files that are left show in the count
                count, nbytes = count + removed[0], nbytes + removed[1]
        return count, nbytes

    def ask(self, wanted: Sequence[tuple[str, str, tuple[Any, ...]]]) -> Iterator[Any]:
        """Call methods of actors, given by node, name and arguments; yield each result, or a message why there is none.

        If an actor dies, the call is repeated once with another actor of that node.
        """
        import ray
        from ray.exceptions import RayActorError, RayError

        calls = []
        for number, (node, name, arguments) in enumerate(wanted):
            slots = self.comparers(node)
            slot = slots[number % len(slots)]
            calls.append((slot, slot.actor, getattr(slot.actor, name).remote(*arguments)))
        for (node, name, arguments), (slot, actor, call) in zip(wanted, calls, strict=True):
            try:
                try:
                    yield ray.get(call)
                except RayActorError:
                    if slot.actor is actor:
                        slot.actor = self.start(node)
                    yield ray.get(getattr(slot.actor, name).remote(*arguments))
            except RayError as error:
                yield f"host {self.hosts[node]} is lost: {type(error).__name__}"

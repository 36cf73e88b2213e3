"""The compare actors of one comparison: started where the shards lie, fed in batches, replaced when they die.

Where something of a batch lies on other nodes, readers there put it into Ray's object store first; then the compare
actor is called with references to it. Ray takes the bytes from node to node; only what is below 100 KiB it hands over
with the calls, by way of the driver.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.index import ShardIndex
from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.cluster.file_locations import Places
from aclcmp.orchestrator.compare.actors.actor import CompareActor
from aclcmp.orchestrator.compare.actors.comparison import Comparison
from aclcmp.orchestrator.compare.actors.schedule import away, home
from aclcmp.orchestrator.compare.actors.second_look_parts import merged, parts
from aclcmp.orchestrator.compare.actors.work_queue import Post
from aclcmp.orchestrator.core.diagnosis import Look, Looks, Suspect, TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.run.directory import RunDir

_MOST_PER_NODE = 16  # beyond this the memory bandwidth of a host is used up
_CORES_PER_READER = 4  # each reads 0.5 to 4 GB/s, columns slower than rows


class Crew:
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
        self._comparing: dict[str, list[Post]] = {}
        self._reading: dict[str, list[Post]] = {}

    def comparing(self, node: str) -> list[Post]:
        """The compare actors of a node, started when they are first asked for."""
        if node not in self._comparing:
            self._comparing[node] = self._posts(node, self.cores[node])
        return self._comparing[node]

    def reading(self, node: str) -> list[Post]:
        """The readers of a node. They never wait for another actor, so nothing can wait in a circle."""
        if node not in self._reading:
            self._reading[node] = self._posts(node, -(-self.cores[node] // _CORES_PER_READER))
        return self._reading[node]

    def is_lost(self, node: str) -> bool:
        """Whether Ray has given a node up."""
        import ray

        return not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())

    def _left(self, places: Places) -> Places:
        return reduce(Places.without, self.lost, places)

    def _posts(self, node: str, count: int) -> list[Post]:
        return [Post(self.start(node)) for _ in range(count)]

    def read_indices(
        self, run: RunDir, readers: Mapping[str, frozenset[int]]
    ) -> dict[str, tuple[list[ShardIndex], list[str]] | str]:
        """Index the shards of ranks of a run, each on the node that `readers` says; also what could not be read.

        Of a node that is lost it is told why, in words.
        """
        asked = [(node, "read_indices", (run, ranks)) for node, ranks in readers.items()]
        return dict(zip(readers, self._asked(asked), strict=True))

    def remove_dumps(self, files: Mapping[str, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete dumped files, given by node id, below `within`; return how many files and bytes went."""
        count = nbytes = 0
        for removed in self._asked([(node, "remove_dumps", (paths, within)) for node, paths in files.items()]):
            if not isinstance(removed, str):  # what is left there is told by the count
                count, nbytes = count + removed[0], nbytes + removed[1]
        return count, nbytes

    def _asked(self, wanted: Sequence[tuple[str, str, tuple[Any, ...]]]) -> Iterator[Any]:
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

    def compare(self, pairs: Sequence[Pair], places: Places, advance: Callable[[int, int], None]) -> Outcomes:
        """Compare all pairs, each where most of it lies; return each (label, rank)'s statistics or why it has none.

        `places` tells where the labels of a rank are read. `advance(how many (label, rank), bytes)` is called as parts
        of the work are done. On KeyboardInterrupt what is done is returned; what was not begun or not finished is then
        absent.
        """
        comparison = Comparison(self, pairs, self._left(places), advance)
        with suppress(KeyboardInterrupt):
            comparison.run()
        return comparison.outcomes.finished()

    def count_ties(self, questions: Sequence[TieQuestion], places: Places) -> dict[tuple[LabelKey, int], int]:
        """Ask where the ids lie how many that differ are ties; of what is lost or interrupted nothing is told."""
        places = self._left(places)
        asked = [(places.home(question.ids.golden.rank), "count_ties", (question,)) for question in questions]
        found: dict[tuple[LabelKey, int], int] = {}
        with suppress(KeyboardInterrupt):
            for question, ties in zip(questions, self._asked(asked), strict=True):
                if not isinstance(ties, str):
                    found[question.ids.key, question.ids.rank] = ties
        return found

    def look(self, suspects: Sequence[Suspect], places: Places) -> Looks:
        """Look again at what does not match; return what was found for each (label, rank), or why nothing was.

        `places` as in `compare`. What an actor left undone because it died is done by another, once. On
        KeyboardInterrupt what is done is returned; what is not finished is then absent.
        """
        import ray
        from ray.exceptions import RayActorError, RayError

        places = self._left(places)
        waiting: dict[str, deque[tuple[Suspect, bool]]] = defaultdict(deque)
        for part in parts(suspects, places):
            waiting[home((part.pairs or part.excerpt)[0], places)].append((part, False))
        idle = {node: list(self.comparing(node)) for node in waiting}
        running: dict[Any, tuple[Suspect, bool, str, Post]] = {}
        done: list[tuple[Suspect, Look | str]] = []
        with suppress(KeyboardInterrupt):
            while any(waiting.values()) or running:
                for node, work in waiting.items():
                    while work and idle[node]:
                        post, (part, again) = idle[node].pop(), work.popleft()
                        call = post.actor.look.remote(part, *self._fetched(part, node, places))
                        running[call] = part, again, node, post
                (call,), _ = ray.wait(list(running), num_returns=1)
                part, again, node, post = running.pop(call)
                try:
                    done.append((part, ray.get(call)))
                except RayError as error:
                    if isinstance(error, RayActorError):
                        post.actor = self.start(node)
                    self._reading.clear()  # or a reader died
                    if again:
                        done.append((part, f"host {self.hosts[node]}: {type(error).__name__}"))
                    else:
                        waiting[node].append((part, True))
                idle[node].append(post)
        return merged(suspects, places, done)

    def _fetched(self, part: Suspect, node: str, places: Places) -> list[Any]:
        """References to what of a part lies on other nodes."""
        needed = away([*part.pairs, *part.excerpt], node, places)
        readers = {holder: min(self.reading(holder), key=lambda post: post.calls) for holder in needed}
        return [readers[holder].actor.read.options(num_returns=2).remote(reads)[1] for holder, reads in needed.items()]

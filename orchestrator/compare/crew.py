"""The compare actors of one comparison: started where the shards lie, fed in batches, replaced when they die.

Where something of a batch lies on other nodes, readers there put it into Ray's object store first; then the compare
actor is called with references to it. Ray takes the bytes from node to node; only what is below 100 KiB it hands over
with the calls, by way of the driver.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.orchestrator.cluster import Node
from aclcmp.orchestrator.compare.actor import CompareActor
from aclcmp.orchestrator.compare.fetch import Read, reads_of
from aclcmp.orchestrator.compare.look import Look, Looks, Suspect
from aclcmp.orchestrator.compare.outcomes import Collected, Outcomes
from aclcmp.orchestrator.compare.schedule import NodeOf, away, batches, home, pair_bytes
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.compare.suspects import merged, parts
from aclcmp.orchestrator.compare.teams import Call, Post, Task, Team
from aclcmp.orchestrator.compare.ties import TieQuestion
from aclcmp.orchestrator.plan.regions import LabelKey, Pair
from aclcmp.orchestrator.rundir import RunDir

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
        self._cores = {node.node_id: min(max(node.cpus, 1), _MOST_PER_NODE) for node in nodes}
        self._comparing: dict[str, list[Post]] = {}
        self._reading: dict[str, list[Post]] = {}

    @property
    def comparing(self) -> dict[str, list[Post]]:
        """The compare actors of every node."""
        if not self._comparing:
            self._comparing = {node: self._posts(node, cores) for node, cores in self._cores.items()}
        return self._comparing

    def reading(self, node: str) -> list[Post]:
        """The readers of a node. They never wait for another actor, so nothing can wait in a circle."""
        if node not in self._reading:
            self._reading[node] = self._posts(node, -(-self._cores[node] // _CORES_PER_READER))
        return self._reading[node]

    def _posts(self, node: str, count: int) -> list[Post]:
        return [Post(self.start(node)) for _ in range(count)]

    def read_indices(self, run: RunDir) -> dict[str, tuple[list[ShardIndex], list[str]]]:
        """Index the shards of a run on every node, by node id; also say in words which could not be read."""
        import ray
        from ray.exceptions import RayError

        found: dict[str, tuple[list[ShardIndex], list[str]]] = {}
        calls = {node: posts[0].actor.read_indices.remote(run) for node, posts in self.comparing.items()}
        for node, call in calls.items():
            try:
                found[node] = ray.get(call)
            except RayError as error:
                found[node] = [], [f"the shards on host {self.hosts[node]} cannot be read: {type(error).__name__}"]
        return found

    def remove_dumps(self, files: Mapping[str, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete dumped files, given by node id, below `within`; return how many files and bytes went."""
        import ray
        from ray.exceptions import RayError

        count = nbytes = 0
        for call in [self.comparing[node][0].actor.remove_dumps.remote(paths, within) for node, paths in files.items()]:
            with suppress(RayError):  # what is left there is told by the count
                removed = ray.get(call)
                count, nbytes = count + removed[0], nbytes + removed[1]
        return count, nbytes

    def compare(self, pairs: Sequence[Pair], node_of: NodeOf, advance: Callable[[int, int], None]) -> Outcomes:
        """Compare all pairs, each where most of it lies; return each (label, rank)'s statistics or why it has none.

        `node_of(rank)` holds what that rank labelled. `advance(how many (label, rank), bytes)` is called as parts of
        the work are done. On KeyboardInterrupt what is done is returned; what was not begun or not finished is then
        absent.
        """
        comparison = _Comparison(self, pairs, node_of, advance)
        with suppress(KeyboardInterrupt):
            comparison.run()
        return comparison.outcomes.finished()

    def count_ties(self, questions: Sequence[TieQuestion], node_of: NodeOf) -> dict[tuple[LabelKey, int], int]:
        """Ask where the ids lie how many that differ are ties; of what is lost or interrupted nothing is told."""
        import ray
        from ray.exceptions import RayError

        calls = {}
        for number, question in enumerate(questions):
            posts = self.comparing[node_of(question.ids.golden.rank)]
            calls[question.ids.key, question.ids.rank] = posts[number % len(posts)].actor.count_ties.remote(question)
        found: dict[tuple[LabelKey, int], int] = {}
        with suppress(KeyboardInterrupt):
            for name, call in calls.items():
                with suppress(RayError):
                    found[name] = ray.get(call)
        return found

    def look(self, suspects: Sequence[Suspect], node_of: NodeOf) -> Looks:
        """Look again at what does not match; return what was found for each (label, rank), or why nothing was.

        `node_of` as in `compare`. On KeyboardInterrupt what is done is returned; what is not finished is then absent.
        """
        import ray
        from ray.exceptions import RayError

        waiting: dict[str, deque[Suspect]] = defaultdict(deque)
        for part in parts(suspects, node_of):
            waiting[home((part.pairs or part.excerpt)[0], node_of)].append(part)
        idle = {node: list(self.comparing[node]) for node in waiting}
        running: dict[Any, tuple[Suspect, str, Post]] = {}
        done: list[tuple[Suspect, Look | str]] = []
        with suppress(KeyboardInterrupt):
            while any(waiting.values()) or running:
                for node, work in waiting.items():
                    while work and idle[node]:
                        post, part = idle[node].pop(), work.popleft()
                        running[post.actor.look.remote(part, *self._fetched(part, node, node_of))] = part, node, post
                (call,), _ = ray.wait(list(running), num_returns=1)
                part, node, post = running.pop(call)
                try:
                    done.append((part, ray.get(call)))
                except RayError as error:  # not tried again: the report can do without
                    done.append((part, f"host {self.hosts[node]}: {type(error).__name__}"))
                    post.actor = self.start(node)
                    self._reading.clear()
                idle[node].append(post)
        return merged(suspects, node_of, done)

    def _fetched(self, part: Suspect, node: str, node_of: NodeOf) -> list[Any]:
        """References to what of a part lies on other nodes."""
        needed = away([*part.pairs, *part.excerpt], node, node_of)
        readers = {holder: min(self.reading(holder), key=lambda post: post.calls) for holder in needed}
        return [readers[holder].actor.read.options(num_returns=2).remote(reads)[1] for holder, reads in needed.items()]


class _Comparison:
    """The work on its way through the actors of a crew."""

    def __init__(self, crew: Crew, pairs: Sequence[Pair], node_of: NodeOf, advance: Callable[[int, int], None]) -> None:
        self.outcomes = Collected(pairs)
        self._crew = crew
        self._node_of = node_of
        self._advance = advance
        by_node: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            by_node[home(pair, node_of)].append(pair)
        self._teams = {
            node: Team(node, crew.comparing[node], self._begin, deque(batches(work, node, node_of)))
            for node, work in by_node.items()
        }
        self._readers: dict[str, Team] = {}
        self._running: dict[Any, Call] = {}

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

    def _begin(self, team: Team, post: Post, batch: list[Pair]) -> None:
        """Compare a batch, or ask for what it needs from other nodes."""
        task = Task(team, post, batch)
        post.calls += 1
        needed = away(batch, team.node, self._node_of)
        task.asked = len(needed)
        for node, reads in needed.items():
            if node not in self._readers:
                self._readers[node] = Team(node, self._crew.reading(node), self._read)
            self._readers[node].waiting.append((task, reads))
            self._readers[node].feed()
        if not needed:
            self._compare(task)

    def _read(self, team: Team, post: Post, wanted: tuple[Task, list[Read]]) -> None:
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
        self, done: Any, task: Task, team: Team, post: Post, reads: Sequence[Read] = (), found: Any = None
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
        """Do again what can be done again, pair by pair; tell what fails alone, or for want of its node."""
        from ray.exceptions import ActorUnschedulableError, RayActorError

        task = call.task
        call.team.most = 1
        if isinstance(error, RayActorError) and call.post.actor is call.actor:
            call.post.actor = self._crew.start(call.team.node)
        if call.reads:
            call.post.calls -= 1
        if task.over:
            return
        self._end(task)
        again = [[pair] for pair in task.batch]
        if isinstance(error, ActorUnschedulableError) or (call.alone and len(again) == 1):
            reads = set(call.reads)
            lost = [pair for pair in task.batch if not reads or not reads.isdisjoint(reads_of(pair))]
            self._tell(lost, [self._words(call, error)] * len(lost))
            kept = [pair for pair in task.batch if pair not in lost]
            again = [kept] if kept else []
        task.team.waiting.extendleft(reversed(again))

    def _end(self, task: Task) -> None:
        task.over = True
        task.post.calls -= 1

    def _tell(self, pairs: Sequence[Pair], results: Sequence[PairStats | str]) -> None:
        self._advance(self.outcomes.add(pairs, results), sum(map(pair_bytes, pairs)))

    def _words(self, call: Call, error: Exception) -> str:
        from ray.exceptions import ObjectLostError

        host, name = self._crew.hosts[call.team.node], type(error).__name__
        if call.reads:
            files = ", ".join(dict.fromkeys(source.path for source, _ in call.reads))
            return f"host {host}: {files} cannot be fetched: {name}"
        if isinstance(error, ObjectLostError):
            return f"what host {host} needed from others was lost on the way: {name}"
        return f"its compare actor on host {host} died: {name}"


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

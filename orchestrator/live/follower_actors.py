"""The followers as Ray actors, one for each node of the ranks: they read new records and compare pairs.

Nothing here blocks for long: during a comparison the caller is called back, and can end it by raising.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.compare.remote_reads import Read
from aclcmp.orchestrator.compare.schedule import batches, home, missing_reads
from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.live.follower import Follower
from aclcmp.orchestrator.live.journal_tail import NewRecords

MOST_LIVES = 3
"""A follower that dies more often is not started again: its pairs are compared at the end."""
TICK = 0.2
"""Seconds of one wait for Ray."""
_NEWS = "news"

Meanwhile = Callable[[], object]


class Followers:
    """One follower on each node where ranks run. Work that a follower cannot do is left undone and is no error."""

    def __init__(self, folder: Path, nodes: Mapping[int, str]) -> None:
        """Start them for the shards that grow in `folder`; `nodes` is each rank's node id."""
        self._folder = folder
        self._nodes = dict(nodes)
        ranks: dict[str, set[int]] = defaultdict(set)
        for rank, node in nodes.items():
            ranks[node].add(rank)
        self._ranks = {node: frozenset(here) for node, here in ranks.items()}
        self._actors: dict[str, Any] = {}
        self._lives: dict[str, int] = defaultdict(int)
        self._news_asked: dict[str, Any] = {}
        self._asked_at: dict[str, float] = {}
        self._read_until: dict[str, float] = {}
        """By node, the time of the last request that was answered."""
        for node in self._ranks:
            self._start(node)

    def ask(self, known: Mapping[ShardFiles, int]) -> None:
        """Ask for records behind the known offsets, on every node that has no open request."""
        for node, actor in self._actors.items():
            if node not in self._news_asked:
                here = {files: offset for files, offset in known.items() if files.rank in self._ranks[node]}
                call = actor.news.options(concurrency_group=_NEWS)
                self._asked_at[node] = time.monotonic()
                self._news_asked[node] = call.remote(self._folder, self._ranks[node], here)

    def collect_news(self, seconds: float) -> list[NewRecords]:
        """Return the answers that come within `seconds`."""
        import ray
        from ray.exceptions import RayError

        calls = {call: node for node, call in self._news_asked.items()}
        if not calls:
            return []
        ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=seconds)
        found: list[NewRecords] = []
        for call in ready:
            node = calls[call]
            del self._news_asked[node]
            try:
                found += ray.get(call)
                self._read_until[node] = self._asked_at[node]
            except RayError:
                self._start(node)
        return found

    def read_until(self, rank: int) -> float:
        """Return the time (`time.monotonic`) up to which all labels of a rank were read."""
        return self._read_until.get(self._nodes[rank], 0.0)

    @property
    def has_pending(self) -> bool:
        """True while an answer is still to come."""
        return bool(self._news_asked)

    @property
    def unheard(self) -> frozenset[int]:
        """Ranks without a follower, and ranks of which an answer is still to come."""
        gone = self._ranks.keys() - self._actors.keys()
        return frozenset().union(*(self._ranks[node] for node in {*gone, *self._news_asked}))

    def compare(self, pairs: Sequence[Pair], places: FileLocations, meanwhile: Meanwhile) -> Outcomes:
        """Compare each pair on the node with most of its bytes; return the outcomes that succeeded.

        `meanwhile()` is called several times a second; an exception from it ends the comparison.
        """
        by_node: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            by_node[home(pair, places)].append(pair)
        work = {node: deque(batches(each, node, places)) for node, each in by_node.items()}
        collected = OutcomeCollector(pairs)
        while any(work.values()):
            batch = {node: left.popleft() for node, left in work.items() if left}
            needed = {node: missing_reads(each, node, places) for node, each in batch.items()}
            fetched = self._fetch(needed, meanwhile)
            calls = {
                node: self._actors[node].compare.remote(each, *fetched[node])
                for node, each in batch.items()
                if node in self._actors and len(fetched[node]) == len(needed[node])
            }
            for node, results in self._results(calls, meanwhile).items():
                collected.add(batch[node], results)
        return collected.complete()

    def count_ties(
        self, questions: Sequence[TieQuestion], places: FileLocations, meanwhile: Meanwhile
    ) -> dict[tuple[LabelKey, int], int]:
        """Return how many ids that differ are ties; questions that no node can answer are left out."""
        found: dict[tuple[LabelKey, int], int] = {}
        for question in questions:
            node = places.home(question.ids.golden.rank)
            if node in self._actors:
                calls = {node: self._actors[node].count_ties.remote(question)}
                for ties in self._results(calls, meanwhile).values():
                    found[question.ids.key, question.ids.rank] = ties
        return found

    def close(self) -> None:
        """End all followers at once."""
        import ray

        for actor in self._actors.values():
            with suppress(Exception):  # it is gone already, or Ray is
                ray.kill(actor)
        self._actors.clear()

    def _fetch(self, needed: Mapping[str, Mapping[str, list[Read]]], meanwhile: Meanwhile) -> dict[str, list[Any]]:
        """Return references to the bytes that each node needs from others, as far as those could read them."""
        receipts: dict[tuple[str, str], Any] = {}
        found: dict[tuple[str, str], Any] = {}
        for node, holders in needed.items():
            for holder, reads in holders.items():
                if holder in self._actors:
                    read = self._actors[holder].read.options(num_returns=2)
                    receipts[node, holder], found[node, holder] = read.remote(reads)
        read_by = self._results(receipts, meanwhile)
        return {
            node: [found[node, holder] for holder in holders if (node, holder) in read_by]
            for node, holders in needed.items()
        }

    def _results(self, calls: Mapping[Any, Any], meanwhile: Meanwhile) -> dict[Any, Any]:
        """Wait for calls; return the results of those that did not fail."""
        import ray
        from ray.exceptions import RayError

        names = {call: name for name, call in calls.items()}
        waiting = list(names)
        found = {}
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=TICK)
            for call in ready:
                try:
                    found[names[call]] = ray.get(call)
                except RayError:  # a dead follower is replaced at the next request for news
                    continue
            if waiting:
                meanwhile()
        return found

    def _start(self, node: str) -> None:
        """Start a follower, or replace it, unless too many have died there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if before := self._actors.pop(node, None):
            with suppress(Exception):
                ray.kill(before)
        self._lives[node] += 1
        if self._lives[node] <= MOST_LIVES:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            remote = ray.remote(concurrency_groups={_NEWS: 1})(Follower)
            self._actors[node] = remote.options(num_cpus=0, scheduling_strategy=there).remote()

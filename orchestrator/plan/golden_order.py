"""Golden order: one sequence of labels that keeps the order in which every rank set them."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from aclcmp.orchestrator.core.regions import LabelKey


def golden_order(chains: Iterable[Sequence[tuple[LabelKey, float]]]) -> list[LabelKey]:
    """Merge the ranks' chains of (label, time) into one order: by task, then keeping every chain's order, then by time.

    Where ranks contradict each other the earlier label goes first. Runs in O(n log n) over all chain links.
    """
    first: dict[LabelKey, float] = {}
    distinct: dict[tuple[LabelKey, ...], None] = {}
    for chain in chains:
        ordered = sorted(chain, key=lambda link: link[0].task)
        for key, time in ordered:
            if time < first.get(key, math.inf):
                first[key] = time
        distinct[tuple([key for key, _ in ordered])] = None  # ranks that run the same code have the same chain
    return _topological_order(_successors(distinct), first)


def _successors(chains: Iterable[Sequence[LabelKey]]) -> dict[LabelKey, set[LabelKey]]:
    """Return of each label those that follow it directly in some chain."""
    after: dict[LabelKey, set[LabelKey]] = {}
    for chain in chains:
        for key in chain:
            after.setdefault(key, set())
        for before, key in itertools.pairwise(chain):
            if before != key:
                after[before].add(key)
    return after


def _topological_order(after: Mapping[LabelKey, set[LabelKey]], first: Mapping[LabelKey, float]) -> list[LabelKey]:
    """Order labels such that each comes before those after it; of several by task, then by the time they came first.

    Ranks that contradict each other leave a cycle: the earliest of the labels that are left then goes first.
    """
    waiting = dict.fromkeys(after, 0)
    for following in after.values():
        for key in following:
            waiting[key] += 1
    ready = [(key.task, first[key], key) for key, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    by_time = iter(sorted((key.task, first[key], key) for key in waiting))
    done: dict[LabelKey, None] = {}
    while len(done) < len(waiting):
        key = heapq.heappop(ready)[2] if ready else next(key for _, _, key in by_time if key not in done)
        if key in done:
            continue
        done[key] = None
        for following_key in after[key]:
            waiting[following_key] -= 1
            if waiting[following_key] == 0 and following_key not in done:
                heapq.heappush(ready, (following_key.task, first[following_key], following_key))
    return list(done)

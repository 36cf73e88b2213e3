"""Golden order: one sequence of labels that keeps the order in which every rank set them."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Sequence

from aclcmp.orchestrator.core.regions import LabelKey


def golden_order(chains: Iterable[Sequence[tuple[LabelKey, float]]]) -> list[LabelKey]:
    """Merge the ranks' chains of (label, time) into one order: by task, then keeping every chain's order, then by time.

    Where ranks contradict each other the earlier label goes first. Runs in O(n log n) over all chain links.
    """
    first: dict[LabelKey, float] = {}
    after: dict[LabelKey, set[LabelKey]] = {}
    waiting: dict[LabelKey, int] = {}
    seen: set[tuple[LabelKey, ...]] = set()
    for chain in chains:
        ordered = sorted(chain, key=lambda link: link[0].task)
        for key, time in ordered:
            if time < first.get(key, math.inf):
                first[key] = time
        links = tuple([key for key, _ in ordered])
        if links in seen:  # ranks that run the same code have the same chain
            continue
        seen.add(links)
        for key in links:
            after.setdefault(key, set())
            waiting.setdefault(key, 0)
        for before, key in itertools.pairwise(links):
            if before != key and key not in after[before]:
                after[before].add(key)
                waiting[key] += 1
    ready = [(key.task, first[key], key) for key, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    # ranks that contradict each other leave a cycle: the earliest label of those left goes first
    left = sorted((key.task, first[key], key) for key in waiting)
    position = 0
    done: dict[LabelKey, None] = {}
    while len(done) < len(waiting):
        if ready:
            key = heapq.heappop(ready)[2]
        else:
            while left[position][2] in done:
                position += 1
            key = left[position][2]
        if key in done:
            continue
        done[key] = None
        for following in after[key]:
            waiting[following] -= 1
            if waiting[following] == 0 and following not in done:
                heapq.heappush(ready, (following.task, first[following], following))
    return list(done)

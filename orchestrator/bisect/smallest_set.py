"""Delta debugging: a set of changes that mends the end, of which none can be left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

Choice = tuple[str, ...]
Trial = Callable[[Choice], bool]
"""Tells whether the end is right with these changes."""


def smallest_set(changes: Sequence[str], mends: Trial) -> Choice:
    """Return some of the changes that mend the end, of which none can be left out, in their order.

    All of them together are known to mend it. The same set is tried once. Source: Zeller, Hildebrandt, "Simplifying and
    Isolating Failure-Inducing Input", 2002 (ddmin).
    """
    tried: dict[Choice, bool] = {tuple(changes): True, (): False}

    def mend(choice: Choice) -> bool:
        if choice not in tried:
            tried[choice] = mends(choice)
        return tried[choice]

    kept, count = tuple(changes), 2
    while len(kept) > 1:
        parts = _split(kept, count)
        found = next((part for part in parts if mend(part)), None)
        if found is not None:
            kept, count = found, 2
            continue
        rests = (tuple(each for each in kept if each not in part) for part in parts)
        found = next((rest for rest in rests if mend(rest)), None)
        if found is not None:
            kept, count = found, max(count - 1, 2)
        elif count >= len(kept):
            break
        else:
            count = min(2 * count, len(kept))
    return kept


def _split(choice: Choice, count: int) -> list[Choice]:
    ends = [round(len(choice) * place / count) for place in range(count + 1)]
    return [choice[begin:end] for begin, end in itertools.pairwise(ends) if begin < end]


def trials_for_one(count: int) -> int:
    """Return how many trials it takes at most where one of so many changes matters, the trial with all included."""
    return 1 + 2 * math.ceil(math.log2(count)) if count > 1 else 1

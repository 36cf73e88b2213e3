"""Faults inside the third kernel of the attention operation: softmax."""

import math
from collections.abc import Callable

from torch import Tensor

from .attention import SelfAttentionOperation, softmax
from .graph import Kernel


def _scale(scores: Tensor) -> Tensor:
    # Infinity where the lowest number is scaled up: its power is still 0.
    return softmax(scores * math.sqrt(2))


def _shifted_head(scores: Tensor) -> Tensor:
    weights = softmax(scores)
    weights[:, -1] = weights[:, -1].roll(1, dims=-2)
    return weights


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": _scale,
    "shifted-head": _shifted_head,
}
"""`scale`: the scores' scale is that of half the head dimension. `shifted-head`: the last head's rows are one off."""


def plant(operation: SelfAttentionOperation, fault: str) -> None:
    """Replace the operation's softmax kernel by one with the fault of that name."""
    operation.softmax = Kernel(operation.softmax.name, FAULTS[fault])

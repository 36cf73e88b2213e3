"""How a rank's local tensor is part of the whole, in the words of `torch.distributed.tensor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aclcmp.labeling.errors import LabelError

PARTIAL = "Partial(sum)"


@dataclass(frozen=True, slots=True)
class Replicate:
    """Every rank holds the whole tensor."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Every rank holds a slice of the whole along dimension `dim` (negative: from the last), in rank order."""

    dim: int


@dataclass(frozen=True, slots=True)
class Partial:
    """Every rank holds a summand: the whole is the sum over all ranks that have the label."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A label's layout as it is recorded.

    `placements` are written like torch's (`"Shard(dim=1)"`), one per mesh dimension. `whole_shape` and `start` (the
    place of the local tensor's first element in the whole) are known for a DTensor, and None otherwise.
    """

    placements: tuple[str, ...]
    whole_shape: tuple[int, ...] | None = None
    start: tuple[int, ...] | None = None

    @property
    def shard_dim(self) -> int | None:
        """The dimension of a plain `Shard(dim)`, None for any other layout."""
        if len(self.placements) == 1 and self.placements[0].startswith("Shard(dim="):
            return int(self.placements[0][len("Shard(dim=") : -1])
        return None

    @property
    def is_replicate(self) -> bool:
        """Whether every rank holds the whole."""
        return all(placement == "Replicate()" for placement in self.placements)

    def __str__(self) -> str:
        return ", ".join(self.placements)

    def to_json(self) -> str:
        """Return the layout as one line of JSON, its form in journals and shards."""
        fields: dict[str, Any] = {"placements": self.placements}
        if self.whole_shape is not None and self.start is not None:
            fields |= {"whole_shape": self.whole_shape, "start": self.start}
        return json.dumps(fields)

    @staticmethod
    def from_json(text: str) -> Layout:
        """Read what `to_json` wrote. Raises ValueError for anything else."""
        fields = json.loads(text)
        try:
            placements = tuple(str(placement) for placement in fields["placements"])
            whole, start = fields.get("whole_shape"), fields.get("start")
            layout = Layout(placements, _integers(whole), _integers(start))
            _ = layout.shard_dim
            if layout.whole_shape is not None or layout.start is not None:
                whole, start = layout.whole_shape or (), layout.start or ()
                if len(whole) != len(start) or not all(0 <= s <= n < 2**63 for s, n in zip(start, whole, strict=True)):
                    raise ValueError(f"impossible place in the whole: {text[:200]}")
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a layout: {text[:200]}") from error
        return layout


def _integers(values: Sequence[Any] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(value) for value in values)


def layout_of(value: object) -> Layout:
    """Turn what a user gave as `layout=` into a record: ours or torch's placements, or a sequence with one of them.

    Raises LabelError for anything that is not `Shard(dim)`, `Replicate()` or `Partial()`.
    """
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    if type(value).__name__ == "Replicate":
        return Layout(("Replicate()",))
    dim = getattr(value, "dim", None)
    if type(value).__name__ == "Shard" and isinstance(dim, int):
        return Layout((f"Shard(dim={dim})",))
    if type(value).__name__ == "Partial" and getattr(value, "reduce_op", "sum") == "sum":
        return Layout((PARTIAL,))
    raise LabelError(f"layout={value!r} is not known; use Shard(dim), Replicate() or Partial()")

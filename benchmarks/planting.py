"""What the models with planted faults have in common: how a run computes, which faults it has, what it labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

OF_ONE_RANK = ("slice permuted", "one token wrong", "heads swapped", "rope missing on a head", "cast to float8")
"""With several ranks only one of them has these."""


@dataclass(frozen=True)
class Fault:
    """A fault of one layer; `rank` has it where only one rank does."""

    kind: str
    layer: int
    rank: int = 0

    def on(self, rank: int) -> str:
        """Return the kind of the fault that this rank has, "" if it has none."""
        return self.kind if rank == self.rank or self.kind not in OF_ONE_RANK else ""


NO_FAULT = Fault("", -1)


@dataclass(frozen=True)
class Setting:
    """How a run computes: its element type, its ranks, which kernels it has, and which of them are faulty."""

    dtype: torch.dtype = torch.float32
    ranks: int = 1
    other_kernels: bool = False
    """Legitimate ones: attention and norms in another order of operations, sums of matmuls in halves."""
    faults: tuple[Fault, ...] = ()

    def at(self, layer: int) -> Fault:
        """The fault of a layer."""
        return next((fault for fault in self.faults if fault.layer == layer), NO_FAULT)


@dataclass
class Recorded:
    """What a run labels: name -> one tensor for each rank, in the order of the computation."""

    labels: dict[str, list[Tensor]] = field(default_factory=dict)

    def label(self, name: str, tensors: list[Tensor]) -> None:
        """Keep copies; ranks that hold the same tensor share one."""
        copies = {id(tensor): tensor.detach().clone() for tensor in tensors}
        self.labels[name] = [copies[id(tensor)] for tensor in tensors]

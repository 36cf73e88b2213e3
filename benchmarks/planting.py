"""Parts that the models with planted faults share: the setting of a run, its faults, and its labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

OF_ONE_RANK = ("slice permuted", "one token wrong", "heads swapped", "rope missing on a head", "cast to float8")
"""Faults that only one of several ranks has."""


@dataclass(frozen=True)
class Fault:
    """A fault of one layer; `rank` is the rank that has it if only one does."""

    kind: str
    layer: int
    rank: int = 0

    def on(self, rank: int) -> str:
        """Return the kind of the fault that this rank has, "" if it has none."""
        return self.kind if rank == self.rank or self.kind not in OF_ONE_RANK else ""


NO_FAULT = Fault("", -1)


@dataclass(frozen=True)
class Setting:
    """Setting of a run: its element type, its ranks, its kernels, and the faults in them."""

    dtype: torch.dtype = torch.float32
    ranks: int = 1
    other_kernels: bool = False
    """True for other legitimate kernels: attention and norms in another order of operations, matmuls in halves."""
    faults: tuple[Fault, ...] = ()

    def at(self, layer: int) -> Fault:
        """Return the fault of a layer."""
        return next((fault for fault in self.faults if fault.layer == layer), NO_FAULT)


@dataclass
class Recorded:
    """Labels of a run, in the order of the computation: name -> one tensor for each rank."""

    labels: dict[str, list[Tensor]] = field(default_factory=dict)

    def label(self, name: str, tensors: list[Tensor]) -> None:
        """Keep copies of the tensors; ranks that hold the same tensor share one."""
        copies = {id(tensor): tensor.detach().clone() for tensor in tensors}
        self.labels[name] = [copies[id(tensor)] for tensor in tensors]

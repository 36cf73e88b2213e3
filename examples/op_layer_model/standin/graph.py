"""Nodes that run inside one another, each numbered within its parent, with the tensors before and after it dumped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .dump import Dump

Tensors = tuple[Tensor, ...]


class Node(Protocol):
    """A model, a layer, an operation or a kernel."""

    @property
    def name(self) -> str:
        """The second half of its folder's name."""
        ...

    def compute(self, scope: "Scope", *inputs: Tensor) -> Tensors:
        """Return the outputs, running the nodes inside through `scope`."""
        ...


@dataclass(frozen=True, slots=True)
class Kernel:
    """The smallest node: one function of tensors."""

    name: str
    function: Callable[..., Tensor | Tensors]

    def compute(self, _scope: "Scope", *inputs: Tensor) -> Tensors:
        """Return the function's outputs."""
        outputs = self.function(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class Scope:
    """The inside of a node while it runs."""

    def __init__(self, dump: Dump | None, path: tuple[str, ...] = (), number: int = 0) -> None:
        self._dump = dump
        self._path = path
        self._number = number

    def run(self, node: Node, *inputs: Tensor) -> Tensors:
        """Run the next node inside and return its outputs."""
        path = (*self._path, f"{self._number}_{node.name}")
        self._number += 1
        self._save(path, "before", inputs, node)
        outputs = node.compute(Scope(self._dump, path), *inputs)
        self._save(path, "after", outputs, node)
        return outputs

    def _save(self, path: tuple[str, ...], moment: str, tensors: Tensors, node: Node) -> None:
        if self._dump is not None:
            self._dump.save(path, moment, tensors, is_kernel=isinstance(node, Kernel))


class Root:
    """A node that the framework calls. It counts its executions; `number` tells it from the framework's other ones."""

    def __init__(self, node: Node, *, number: int = 0, device: int = 0) -> None:
        self.node = node
        self._number = number
        self._device = device
        self._executions = 0

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Execute once and return the node's outputs."""
        dump = Dump.of_execution(self._executions, self._device)
        self._executions += 1
        return Scope(dump, number=self._number).run(self.node, *inputs)

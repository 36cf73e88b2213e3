"""The state of torch while a hook runs. Its functions are looked up once: not every version has all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aclcmp.labeling.graphs import DEVICE_GRAPHS

Query = Callable[[], bool]


class TorchState:
    """The state of torch at this moment; a query that this version of torch lacks answers no."""

    def __init__(self) -> None:
        import torch

        self.is_compiling = _compiling(torch)
        self.is_tracing: Query = getattr(torch.jit, "is_tracing", _no)
        self._graph_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
        devices: list[Any] = [getattr(torch, name, None) for name in DEVICE_GRAPHS]
        self._capturing: list[tuple[Query, Query]] = [
            (
                getattr(device, "is_initialized", getattr(device, "is_available", _yes)),
                device.is_current_stream_capturing,
            )
            for device in devices
            if hasattr(device, "is_current_stream_capturing")
        ]

    def in_backward(self) -> bool:
        """Tell whether a backward pass runs: in it a checkpoint recomputes what was labelled before."""
        return self._graph_task() != -1

    def is_capturing(self) -> bool:
        """Tell whether a device graph is being captured. This initialises no unused device."""
        return any(initialized() and capturing() for initialized, capturing in self._capturing)


def _compiling(torch: Any) -> Query:
    """Return `torch.compiler.is_compiling`, or dynamo's own function in versions without it."""
    if query := getattr(getattr(torch, "compiler", None), "is_compiling", None):
        return query  # type: ignore[no-any-return]
    with suppress(Exception):
        return importlib.import_module("torch._dynamo.external_utils").is_compiling  # type: ignore[no-any-return]
    return _no


def _no() -> bool:
    return False


def _yes() -> bool:
    return True

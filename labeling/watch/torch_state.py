"""What torch is doing while a hook runs, asked through functions looked up once: not every version has them all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Asked = Callable[[], bool]


class Moment:
    """Questions to torch, each answered with no where this torch cannot be asked."""

    def __init__(self) -> None:
        import torch

        self.is_compiling = _compiling(torch)
        self.is_tracing: Asked = getattr(torch.jit, "is_tracing", _no)
        self._graph_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
        devices: list[Any] = [getattr(torch, name, None) for name in ("cuda", "npu")]
        self._capturing: list[tuple[Asked, Asked]] = [
            (
                getattr(device, "is_initialized", getattr(device, "is_available", _yes)),
                device.is_current_stream_capturing,
            )
            for device in devices
            if hasattr(device, "is_current_stream_capturing")
        ]

    def in_backward(self) -> bool:
        """Whether a backward pass is under way: a checkpoint recomputes in it what was labelled already."""
        return self._graph_task() != -1

    def is_capturing(self) -> bool:
        """Whether a device graph is being captured; a device that was never used is not woken for the answer."""
        return any(initialized() and asked() for initialized, asked in self._capturing)


def _compiling(torch: Any) -> Asked:
    """`torch.compiler.is_compiling`, or what dynamo puts in its place in versions without it."""
    if asked := getattr(getattr(torch, "compiler", None), "is_compiling", None):
        return asked  # type: ignore[no-any-return]
    with suppress(Exception):
        return importlib.import_module("torch._dynamo.external_utils").is_compiling  # type: ignore[no-any-return]
    return _no


def _no() -> bool:
    return False


def _yes() -> bool:
    return True

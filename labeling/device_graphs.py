"""Labels in device graphs (CUDA graphs, ACL graphs): copied by the graph itself, and recorded after each replay.

A replay calls no Python. So what is labelled during capture is cloned, which is an operation of the graph as any other:
the clone lies in the graph's memory pool, where nothing else is put as long as we hold it, and has the values of the
last replay. The clones are an attribute of the graph, and go with it.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.graphs import DEVICE_GRAPHS

_CLONES = "_aclcmp_clones"
"""Attribute of a graph: pairs of a clone and the function that records it."""
_SEEN = "_aclcmp_seen"
_TREES = "graph_tree"
"""Part of the names of inductor's modules (mode="reduce-overhead") that capture. They raise where anything but the
outputs of their graphs lies in the pool, as our clones would."""


class _Thread(threading.local):
    graph: Any = None
    """The graph that this thread captures."""
    is_capturing: Callable[[], bool]
    """What its device says of the current stream."""
    replayed: list[Any]
    """Graphs whose clones are still to be recorded."""
    waits = False
    """They are recorded at the end of the context, not at once."""

    def __init__(self) -> None:
        self.replayed = []


_thread = _Thread()


def see_device_graphs() -> None:
    """Let captures and replays of this torch's device graphs be seen, from now on. Calling it again does nothing."""
    torch = sys.modules.get("torch")
    for device, name in DEVICE_GRAPHS.items():
        module = getattr(torch, device, None)
        kind = getattr(module, name, None)
        if kind is not None and hasattr(module, "is_current_stream_capturing") and not hasattr(kind, _SEEN):
            with suppress(AttributeError, TypeError):  # a class with other methods, or one that cannot be changed
                _wrap(kind, module)


def _wrap(kind: Any, device: Any) -> None:
    begin, end, run, reset = kind.capture_begin, kind.capture_end, kind.replay, kind.reset

    @functools.wraps(begin)
    def capture_begin(graph: Any, *args: Any, **kwargs: Any) -> None:
        begin(graph, *args, **kwargs)
        if not _is_inductors():
            with suppress(AttributeError):
                setattr(graph, _CLONES, [])
                _thread.graph, _thread.is_capturing = graph, device.is_current_stream_capturing

    @functools.wraps(end)
    def capture_end(graph: Any, *args: Any, **kwargs: Any) -> None:
        _thread.graph = None
        end(graph, *args, **kwargs)

    @functools.wraps(run)
    def replay(graph: Any, *args: Any, **kwargs: Any) -> None:
        record_replays()
        run(graph, *args, **kwargs)
        if getattr(graph, _CLONES, ()):
            _thread.replayed.append(graph)
            if not _thread.waits:
                record_replays()

    @functools.wraps(reset)
    def reset_and_forget(graph: Any, *args: Any, **kwargs: Any) -> None:
        if hasattr(graph, _CLONES):
            delattr(graph, _CLONES)
        reset(graph, *args, **kwargs)

    setattr(kind, _SEEN, True)
    kind.capture_begin, kind.capture_end, kind.replay, kind.reset = capture_begin, capture_end, replay, reset_and_forget


def _is_inductors() -> bool:
    """Tell whether inductor captures: its `_record` enters `torch.cuda.graph`, which calls `capture_begin`."""
    with suppress(ValueError):  # fewer frames
        return _TREES in sys._getframe(3).f_globals.get("__name__", "")
    return False


def in_capture() -> bool:
    """Tell whether this thread captures a graph whose replays will be seen."""
    return _thread.graph is not None and _thread.is_capturing()


def is_in_graph(value: Any) -> bool:
    """Tell whether a value is a tensor that the graph computes which this thread captures."""
    if _thread.graph is None or not isinstance(value, sys.modules["torch"].Tensor):
        return False
    return value.device.type in DEVICE_GRAPHS and in_capture()


def clone_in_graph(tensor: Any, record: Callable[[Any], None]) -> None:
    """Clone a tensor in the graph that is captured, and call `record` with the clone after each replay.

    Raises LabelError where it cannot be cloned, as for want of memory.
    """
    try:
        clone = tensor.detach().clone()
    except Exception as error:  # the capture itself goes on
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise LabelError(
            f"it runs while a device graph is captured, and could not be cloned there ({why}): label less (--labels), "
            "capture fewer sizes, or run without graphs"
        ) from None
    getattr(_thread.graph, _CLONES).append((clone, record))


def record_replays() -> None:
    """Record what graphs have computed whose replays are not recorded yet."""
    while _thread.replayed:
        for clone, record in getattr(_thread.replayed.pop(0), _CLONES, ()):
            record(clone)


@contextmanager
def replays_until_end() -> Iterator[None]:
    """Record what is replayed inside at the end, or before the next replay.

    vllm-ascend replays a graph that waits on the device for parameters, which it sends only afterwards: who asks for a
    result in between waits for ever.
    """
    _thread.waits = True
    try:
        yield
        record_replays()
    finally:
        _thread.waits = False
        _thread.replayed.clear()

"""The hooks of a watched module: they label what passes by, and change, keep and raise nothing.

Measured with torch 2.13: torch.compile traces the hooks of a model into its code, where a copy to the host would break
the graph (an error with `fullgraph=True`), so there they record nothing, and say so when they are traced; where code
compiled before is used again they are not even traced.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aclcmp.labeling.api import record_at
from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.watch.names import Named
from aclcmp.labeling.watch.parallel import Known
from aclcmp.labeling.watch.values import tensors_in

_told: set[str] = set()


def tell(text: str, kind: str = "") -> None:
    """Say one line on stderr, once in a process; of one kind only the first."""
    if (kind or text) not in _told:
        _told.add(kind or text)
        with suppress(OSError, ValueError, AttributeError):  # a daemon has no stderr, or a closed one
            sys.stderr.write(f"aclcmp: {text}\n")


class Tap:
    """One watched module of one side: where its labels get their ids, call site and layouts, and whether it ran."""

    def __init__(
        self, side: str, data_id: str, named: Named, known: Known, label_id: Callable[[str], str | None], level: str
    ) -> None:
        self.side = side
        self.data_id = data_id
        self.ran = False
        self.call_site = _call_site(named)
        self._first = _first_parameter(named.inner)
        self._known = known
        self._label_id = label_id
        self._ids: dict[str, str | None] = {}
        self._level = level

    def output(self, value: Any) -> None:
        """Label what the module returned."""
        self.ran = True
        if not self._known.packed:
            self._record("", value, self._known.of_output)

    def inputs(self, args: Any, kwargs: dict[str, Any]) -> None:
        """Label what the module is given, before it can write to it."""
        self.ran = True
        if not args and self._first in kwargs:  # the first one may be given by name: the same label
            kwargs = dict(kwargs)
            args = (kwargs.pop(self._first),)
        self._record(".input", args[0] if len(args) == 1 else args, lambda _tensor: self._known.taken)
        self._record(".input", kwargs, lambda _tensor: None)

    def _record(self, kind: str, value: Any, layout_of: Callable[[Any], Any]) -> None:
        try:
            for end, tensor in tensors_in(value):
                name = self._id(kind + end)
                if name is not None:
                    # a DTensor tells its own layout
                    layout = None if end or hasattr(tensor, "placements") else layout_of(tensor)
                    record_at(self.call_site, self.side, name, tensor, layout, self._level)
        except AclcmpError:  # strict: the user wants it
            raise
        except Exception as error:
            tell(f"watch could not label what passes {self.data_id!r}: {type(error).__name__}: {error}")

    def _id(self, end: str) -> str | None:
        if end not in self._ids:
            self._ids[end] = self._label_id(end)
        return self._ids[end]


class _Hook:
    """A callable of one tap. Copies and pickles of a watched model hold a hook that does nothing."""

    __slots__ = ("_traced", "tap")

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

        def traced() -> bool:
            tell(
                f"watch: {tap.data_id!r} runs in compiled code, where hooks record nothing: run it eagerly, or call "
                "set_label outside the compiled part",
                kind="compiled",
            )
            return True

        # What torch.compiler.assume_constant_result sets, without its import of the whole compiler.
        traced._dynamo_marked_constant = True  # type: ignore[attr-defined]
        self._traced = traced

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _make_inert, ()


class AfterForward(_Hook):
    """A forward hook."""

    __slots__ = ()

    def __call__(self, _module: Any, _args: Any, output: Any) -> None:
        import torch

        if torch.compiler.is_compiling():
            self._traced()
        elif _is_a_call(torch, self.tap):
            self.tap.output(output)


class BeforeForward(_Hook):
    """A forward pre-hook with keyword arguments."""

    __slots__ = ()

    def __call__(self, _module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        import torch

        if torch.compiler.is_compiling():
            self._traced()
        elif _is_a_call(torch, self.tap):
            self.tap.inputs(args, kwargs)


def _make_inert() -> Callable[..., None]:
    return _inert


def _inert(*_args: Any, **_kwargs: Any) -> None:
    """The hook of a copy."""


def _is_a_call(torch: Any, tap: Tap) -> bool:
    """Whether a forward pass with values to copy is under way."""
    if torch._C._current_graph_task_id() != -1:  # within backward: a checkpoint recomputes what was labelled already
        return False
    if torch.jit.is_tracing():
        tap.ran = True
        tell("watch: what runs under torch.jit.trace is not labelled; run the model itself")
        return False
    if _is_capturing(torch):
        tap.ran = True
        tell(
            f"watch: {tap.data_id!r} runs while a device graph is captured, where nothing can be copied, and the "
            "graph's replay calls no hooks: run without graphs, or call set_label on the graph's outputs",
            kind="captured",
        )
        return False
    return True


def _is_capturing(torch: Any) -> bool:
    for device in (torch.cuda, getattr(torch, "npu", None)):
        asked = getattr(device, "is_current_stream_capturing", None)
        if device is not None and asked is not None and device.is_initialized() and asked():
            return True
    return False


def _call_site(named: Named) -> str:
    """Return `file:line` of the forward of the module's class, or of the class around it that is not torch's own; the
    class's name where it has no code in Python."""
    owner = named
    while type(owner.inner).__module__.startswith("torch.") and owner.parent is not None:
        owner = owner.parent
    kind = type(owner.inner)
    code = getattr(_forward(kind), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{kind.__module__}.{kind.__qualname__}"


def _first_parameter(module: Any) -> str:
    code = getattr(_forward(type(module)), "__code__", None)
    return code.co_varnames[1] if code and code.co_argcount > 1 else ""


def _forward(kind: type) -> Any:
    """The class's forward without its decorators."""
    function = getattr(kind, "forward", None)
    with suppress(ValueError):
        return inspect.unwrap(function) if callable(function) else None
    return function

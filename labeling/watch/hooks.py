"""The hooks of a watched module. They label the tensors that pass, and neither keep nor raise anything.

They change nothing either, unless the launcher has golden's values put into the place of the labels.

Measured with torch 2.13: torch.compile traces the hooks of a model into its code, where a copy to the host would break
the graph (an error with `fullgraph=True`). There an operator of ours labels what passes (`labeling/taps.py`). Code that
was compiled before and is used again does not trace them, so watch a model before it first runs.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from aclcmp.labeling.api import label_replays_at
from aclcmp.labeling.device_graphs import in_capture, is_in_graph
from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.golden_values.substitution import fail_in_graph, label_and_replace
from aclcmp.labeling.taps import define_tap, tap_passer
from aclcmp.labeling.watch.messages import print_once
from aclcmp.labeling.watch.module_names import NamedModule
from aclcmp.labeling.watch.nested_tensors import opaque_leaf, replace_tensors, tensors_in
from aclcmp.labeling.watch.torch_state import TorchState
from aclcmp.labeling.watch.tp_layouts import ModuleLayouts


class Tap:
    """One watched module on one side: the ids, call site and layouts of its labels, and whether it ran."""

    def __init__(
        self,
        side: str,
        data_id: str,
        named: NamedModule,
        layouts: ModuleLayouts,
        label_id: Callable[[str], str | None],
        level: str,
        torch_state: TorchState,
    ) -> None:
        self.side = side
        self.data_id = data_id
        self.ran = False
        self.optional = _may_not_run(named.inner)
        self.weights = frozenset(id(weight) for weight in named.inner._parameters.values() if weight is not None)
        """Identities of its own parameters. A tied module whose weight another module uses need not run itself."""
        self.call_site = _call_site(named)
        self.torch_state = torch_state
        self._first = _first_parameter(named.inner)
        self._layouts = layouts
        self._label_id = label_id
        self._ids: dict[str, str | None] = {}
        self._level = level

    def after(self, _args: Any, output: Any) -> Any:
        """Label what the module returned; return what replaces it, None where nothing does."""
        if self._layouts.packed:
            return None
        found, values = self._record("", output, self._layouts.output_layout)
        if not found and (opaque := opaque_leaf(output)) is not None:
            kind = type(opaque).__qualname__
            print_once(
                f"watch: {self.data_id!r}: its output {'is' if opaque is output else 'holds'} a {kind}, in which no "
                "tensor is found: not labelled",
                kind=f"unreadable {type(opaque).__module__}.{kind}",
            )
        return replace_tensors(output, values) if values else None

    def before(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Label the module's inputs, before the module can write to them; return what replaces them, or None."""
        first = ""
        if not args and self._first in kwargs:  # the first argument may be passed by name; its label is the same
            kwargs, first = dict(kwargs), self._first
            args = (kwargs.pop(self._first),)
        passed = args[0] if len(args) == 1 else args
        _, of_args = self._record(".input", passed, lambda _tensor: self._layouts.input)
        _, of_kwargs = self._record(".input", kwargs, lambda _tensor: None)
        if not of_args and not of_kwargs:
            return None
        passed, kwargs = replace_tensors(passed, of_args), replace_tensors(kwargs, of_kwargs)
        args = (passed,) if len(args) == 1 else passed
        return ((), {first: args[0], **kwargs}) if first else (args, kwargs)

    def run_safely(self, action: Callable[[Any, Any], Any], *values: Any) -> Any:
        """Run `after` or `before` where the call is to be labelled. Raises nothing, except in a strict run."""
        try:
            if self._is_recordable_call():
                self.ran = True
                return action(*values)
        except AclcmpError:
            raise
        except Exception as error:
            with suppress(Exception):  # the text of the error may raise too
                why = f"{type(error).__name__}: {error}"
                print_once(f"watch could not label what passes {self.data_id!r}: {why}", kind=why)
        return None

    def _record(self, kind: str, value: Any, layout_of: Callable[[Any], Any]) -> tuple[bool, dict[str, Any]]:
        """Label the tensors in a value; return whether there are any, and what replaces them, by their endings."""
        found, values = False, {}
        for end, tensor in tensors_in(value):
            found = True
            name = self._id(kind + end)
            if name is not None:
                # a DTensor carries its own layout
                layout = None if end or hasattr(tensor, "placements") else layout_of(tensor)
                if is_in_graph(tensor):
                    record = partial(_record_while_watched, ref(self), name, layout)
                    if not fail_in_graph(self.call_site, self.side, name):
                        label_replays_at(self.call_site, self.side, name, tensor, record)
                elif (new := self.record(name, layout, tensor)) is not None:
                    values[end] = new
        return found, values

    def record(self, name: str, layout: Any, tensor: Any) -> Any:
        """Label one tensor; return what replaces it, or None."""
        return label_and_replace(self.call_site, self.side, name, tensor, layout, self._level)

    def _id(self, end: str) -> str | None:
        if end not in self._ids:
            self._ids[end] = self._label_id(end)
        return self._ids[end]

    def _is_recordable_call(self) -> bool:
        """Tell whether this is a forward pass whose values can be copied."""
        if self.torch_state.in_backward():
            return False
        if self.torch_state.is_tracing():
            self.ran = True
            print_once("watch: what runs under torch.jit.trace is not labelled; run the model itself")
            return False
        if self.torch_state.is_capturing() and not in_capture():
            self.ran = True
            print_once(
                f"watch: {self.data_id!r} runs while a device graph is captured, where nothing can be copied, and the "
                "graph's replay calls no hooks: run without graphs, or call set_label on the graph's outputs",
                kind="captured",
            )
            return False
        return True


def _record_while_watched(tap: ref[Tap], name: str, layout: Any, tensor: Any) -> None:
    """Label what a graph computed, as long as the hook that is captured in it is still there."""
    if (alive := tap()) is not None:
        alive.record(name, layout, tensor)


class Callers:
    """The running modules that contain a shared module, the innermost last."""

    def __init__(self, is_compiling: Callable[[], bool]) -> None:
        self._is_compiling = is_compiling
        self._running = threading.local()

    def enter(self, module: Any, _args: Any) -> None:
        """Note that a module begins (a forward pre-hook)."""
        if not self._is_compiling():
            self._stack().append(id(module))

    def leave(self, module: Any, _args: Any, _output: Any) -> None:
        """Note that a module ends, also by an exception (a forward hook that is always called)."""
        if self._is_compiling():
            return
        stack = self._stack()
        while stack and stack.pop() != id(module):
            pass

    def innermost(self, among: Collection[int]) -> int | None:
        """Return the identity of the innermost running module among several; None where none of them runs."""
        return next((each for each in reversed(self._stack()) if each in among), None)

    def _stack(self) -> list[int]:
        if not hasattr(self._running, "stack"):
            self._running.stack = []
        stack: list[int] = self._running.stack
        return stack

    def __reduce__(self) -> tuple[type[Callers], tuple[Callable[[], bool]]]:
        # copies and pickles of a watched model get an object that notes nothing, as while compiling
        return Callers, (_always,)


def _always() -> bool:
    return True


class SharedTap:
    """A module with several parents: each call is labelled under the module's name in the parent that calls it."""

    def __init__(self, first: Tap, by_caller: Mapping[int, Tap | None], callers: Callers) -> None:
        """Take the taps by the identity of the calling module: None where its calls are not labelled.

        `first` serves calls from all other places.
        """
        self.side, self.data_id, self.torch_state = first.side, first.data_id, first.torch_state
        self._first, self._by_caller, self._callers = first, by_caller, callers

    def after(self, args: Any, output: Any) -> Any:
        """Label what the module returned; return what replaces it."""
        return self.run_safely(self.after, args, output)

    def before(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Label the module's inputs; return what replaces them."""
        return self.run_safely(self.before, args, kwargs)

    def run_safely(self, action: Callable[[Any, Any], Any], *values: Any) -> Any:
        """Run `after` or `before` of the caller's tap, where the call is to be labelled."""
        caller = self._callers.innermost(self._by_caller)
        tap = self._first if caller is None else self._by_caller[caller]
        new = None
        if tap is not None:
            new = tap.run_safely(tap.after if action == self.after else tap.before, *values)
        self._first.ran |= tap is None or tap.ran
        return new


class Hook:
    """A forward hook, or a pre-hook with keywords, of one tap.

    Copies and pickles of a watched model hold a hook that does nothing.
    """

    __slots__ = ("_action", "_before", "_is_compiling", "_key", "_label", "_pass_tap", "_report_tracing", "tap")

    def __init__(self, tap: Tap | SharedTap, action: Callable[[Any, Any], Any]) -> None:
        self.tap = tap
        self._action = action
        self._is_compiling = tap.torch_state.is_compiling
        self._before = before = action == tap.before
        self._pass_tap = tap_passer() if isinstance(tap, Tap) else None
        self._label = lambda value: tap.run_safely(action, *((value, {}) if before else ((), value)))
        self._key = define_tap(f"{tap.side} {tap.data_id}{' input' if before else ''}", self._label)

        def report_tracing() -> bool:
            print_once(
                f"watch: {tap.data_id!r} runs in compiled code with gradients, or passes no plain tensors there: not "
                "labelled; run it under torch.no_grad(), or eagerly, or call set_label outside the compiled part",
                kind="compiled",
            )
            return True

        # torch.compiler.assume_constant_result sets this too, but its import loads the whole compiler.
        report_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]
        self._report_tracing = report_tracing

    def __call__(self, _module: Any, args: Any, passed: Any) -> Any:
        """Label what passes; in compiled code return it behind an operator of the graph that does so."""
        if not self._is_compiling():
            return self.tap.run_safely(self._action, args, passed)
        value = None if self._pass_tap is None else self._pass_tap(args if self._before else passed, self._key)
        if value is None:
            self._report_tracing()
            return None
        return (value, passed) if self._before else value

    @property
    def __name__(self) -> str:
        """No name: torch.jit.script asks for it, and learns from the error what to do."""
        # torch.jit.script compiles hooks too and reads the name of each first, so this is the place for the advice.
        raise AttributeError("torch.jit.script cannot compile the hooks of aclcmp.watch: script a model, then watch it")

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _make_inert, ()


def _make_inert() -> Callable[..., None]:
    return _inert


def _inert(*_args: Any, **_kwargs: Any) -> None:
    """Do nothing: the hook of a copied model."""


def _may_not_run(module: Any) -> bool:
    """Tell whether correct models may never call a module.

    Attention reads its dropout's probability and its projection's weight, and calls functions instead.
    """
    import torch

    projection = getattr(torch.nn.modules.linear, "NonDynamicallyQuantizableLinear", ())
    return isinstance(module, (torch.nn.modules.dropout._DropoutNd, projection))


def _call_site(named: NamedModule) -> str:
    """Return `file:line` of the module's forward; the class's name where it has no code in Python.

    For a module of torch's own it is the forward of the nearest module around it that is not torch's.
    """
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
    """Return the class's forward without its decorators."""
    function = getattr(kind, "forward", None)
    with suppress(ValueError):
        return inspect.unwrap(function) if callable(function) else None
    return function

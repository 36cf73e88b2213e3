"""The hooks of a watched module: they label what passes by, and change, keep and raise nothing.

Measured with torch 2.13: torch.compile traces the hooks of a model into its code, where a copy to the host would break
the graph (an error with `fullgraph=True`), so there they record nothing, and say so when they are traced; where code
compiled before is used again they are not even traced.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from aclcmp.labeling.api import record_at
from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.watch.messages import tell
from aclcmp.labeling.watch.module_names import Named
from aclcmp.labeling.watch.nested_tensors import tensors_in, unreadable
from aclcmp.labeling.watch.torch_state import Moment
from aclcmp.labeling.watch.tp_layouts import Known


class Tap:
    """One watched module of one side: where its labels get their ids, call site and layouts, and whether it ran."""

    def __init__(
        self,
        side: str,
        data_id: str,
        named: Named,
        known: Known,
        label_id: Callable[[str], str | None],
        level: str,
        moment: Moment,
    ) -> None:
        self.side = side
        self.data_id = data_id
        self.ran = False
        self.optional = _never_called(named.inner)
        self.weights = frozenset(id(weight) for weight in named.inner._parameters.values() if weight is not None)
        """Identities of its own parameters: a tied module that only lends its weight to another does not run."""
        self.call_site = _call_site(named)
        self.moment = moment
        self._first = _first_parameter(named.inner)
        self._known = known
        self._label_id = label_id
        self._ids: dict[str, str | None] = {}
        self._level = level

    def after(self, _args: Any, output: Any) -> None:
        """Label what the module returned."""
        if self._known.packed:
            return
        if not self._record("", output, self._known.of_output) and (strange := unreadable(output)) is not None:
            kind = type(strange).__qualname__
            tell(
                f"watch: {self.data_id!r}: its output {'is' if strange is output else 'holds'} a {kind}, in which no "
                "tensor is found: not labelled",
                kind=f"unreadable {type(strange).__module__}.{kind}",
            )

    def before(self, args: Any, kwargs: dict[str, Any]) -> None:
        """Label what the module is given, before it can write to it."""
        if not args and self._first in kwargs:  # the first one may be given by name: the same label
            kwargs = dict(kwargs)
            args = (kwargs.pop(self._first),)
        self._record(".input", args[0] if len(args) == 1 else args, lambda _tensor: self._known.taken)
        self._record(".input", kwargs, lambda _tensor: None)

    def guarded(self, act: Callable[[Any, Any], None], *given: Any) -> None:
        """Do `after` or `before` if this is the moment for it. Raises nothing but what a strict run asks for."""
        try:
            if self._is_a_call():
                self.ran = True
                act(*given)
        except AclcmpError:
            raise
        except Exception as error:
            with suppress(Exception):  # an error that cannot even be shown
                why = f"{type(error).__name__}: {error}"
                tell(f"watch could not label what passes {self.data_id!r}: {why}", kind=why)

    def _record(self, kind: str, value: Any, layout_of: Callable[[Any], Any]) -> bool:
        """Label the tensors in a value; return whether there are any."""
        found = False
        for end, tensor in tensors_in(value):
            found = True
            name = self._id(kind + end)
            if name is not None:
                # a DTensor tells its own layout
                layout = None if end or hasattr(tensor, "placements") else layout_of(tensor)
                record_at(self.call_site, self.side, name, tensor, layout, self._level)
        return found

    def _id(self, end: str) -> str | None:
        if end not in self._ids:
            self._ids[end] = self._label_id(end)
        return self._ids[end]

    def _is_a_call(self) -> bool:
        """Whether a forward pass with values to copy is under way."""
        if self.moment.in_backward():
            return False
        if self.moment.is_tracing():
            self.ran = True
            tell("watch: what runs under torch.jit.trace is not labelled; run the model itself")
            return False
        if self.moment.is_capturing():
            self.ran = True
            tell(
                f"watch: {self.data_id!r} runs while a device graph is captured, where nothing can be copied, and the "
                "graph's replay calls no hooks: run without graphs, or call set_label on the graph's outputs",
                kind="captured",
            )
            return False
        return True


class Callers:
    """The modules that are running and have a shared module inside, the innermost last."""

    def __init__(self, is_compiling: Callable[[], bool]) -> None:
        self._is_compiling = is_compiling
        self._running = threading.local()

    def enter(self, module: Any, _args: Any) -> None:
        """A module begins (a forward pre-hook)."""
        if not self._is_compiling():
            self._stack().append(id(module))

    def leave(self, module: Any, _args: Any, _output: Any) -> None:
        """It ends, also by an exception (a forward hook that is always called)."""
        if self._is_compiling():
            return
        stack = self._stack()
        while stack and stack.pop() != id(module):
            pass

    def innermost(self, among: Collection[int]) -> int | None:
        """Return the identity of the innermost running module of several."""
        return next((each for each in reversed(self._stack()) if each in among), None)

    def _stack(self) -> list[int]:
        if not hasattr(self._running, "stack"):
            self._running.stack = []
        stack: list[int] = self._running.stack
        return stack

    def __reduce__(self) -> tuple[type[Callers], tuple[Callable[[], bool]]]:
        # copies and pickles of a watched model hold one that does nothing, as while compiling
        return Callers, (_always,)


def _always() -> bool:
    return True


class Shared:
    """A module that several others hold: each call is labelled under the name that it has in the module that calls."""

    def __init__(self, first: Tap, by_caller: Mapping[int, Tap | None], callers: Callers) -> None:
        """Take the taps by the identity of the calling module: None where its calls are not labelled.

        `first` serves calls from all other places.
        """
        self.side, self.data_id, self.moment = first.side, first.data_id, first.moment
        self._first, self._by_caller, self._callers = first, by_caller, callers

    def after(self, args: Any, output: Any) -> None:
        """Label what the module returned."""
        self.guarded(self.after, args, output)

    def before(self, args: Any, kwargs: dict[str, Any]) -> None:
        """Label what the module is given."""
        self.guarded(self.before, args, kwargs)

    def guarded(self, act: Callable[[Any, Any], None], *given: Any) -> None:
        """Do `after` or `before` of the caller's tap, if this is the moment for it."""
        caller = self._callers.innermost(self._by_caller)
        tap = self._first if caller is None else self._by_caller[caller]
        if tap is not None:
            tap.guarded(tap.after if act == self.after else tap.before, *given)
        self._first.ran |= tap is None or tap.ran


class Hook:
    """A forward hook, or a pre-hook with keywords, of one tap.

    Copies and pickles of a watched model hold a hook that does nothing.
    """

    __slots__ = ("_act", "_is_compiling", "_traced", "tap")

    def __init__(self, tap: Tap | Shared, act: Callable[[Any, Any], None]) -> None:
        self.tap = tap
        self._act = act
        self._is_compiling = tap.moment.is_compiling

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

    def __call__(self, _module: Any, args: Any, passed: Any) -> None:
        """Label what passes; in compiled code record nothing."""
        if self._is_compiling():
            self._traced()
        else:
            self.tap.guarded(self._act, args, passed)

    @property
    def __name__(self) -> str:
        """No name: torch.jit.script asks for it, and learns from the error what to do."""
        # torch.jit.script compiles hooks too and asks each for its name first: the place to say what helps.
        raise AttributeError("torch.jit.script cannot compile the hooks of aclcmp.watch: script a model, then watch it")

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _make_inert, ()


def _make_inert() -> Callable[..., None]:
    return _inert


def _inert(*_args: Any, **_kwargs: Any) -> None:
    """The hook of a copy."""


def _never_called(module: Any) -> bool:
    """Tell whether correct models may never call a module.

    Attention reads its dropout's probability and its projection's weight, and calls functions instead.
    """
    import torch

    projection = getattr(torch.nn.modules.linear, "NonDynamicallyQuantizableLinear", ())
    return isinstance(module, (torch.nn.modules.dropout._DropoutNd, projection))


def _call_site(named: Named) -> str:
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
    """The class's forward without its decorators."""
    function = getattr(kind, "forward", None)
    with suppress(ValueError):
        return inspect.unwrap(function) if callable(function) else None
    return function

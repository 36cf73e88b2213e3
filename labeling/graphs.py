"""Detection of graphs (traced, captured or transformed) in which a label cannot be recorded and is skipped.

Measured with torch 2.13: `torch.compile` breaks its graph at a label, which is then recorded; with `fullgraph=True`, in
`torch.export` and in what must be one graph (`torch.cond`) a break is an error.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

_ELSE = "label it outside, or run it eagerly"
UNBREAKABLE = "it is in a compiled graph that must not break (fullgraph=True, torch.export, torch.cond, torch.func)"
COMPILED = (
    f"{UNBREAKABLE}, where no label is recorded: {_ELSE} (torch.compiler.disable, or torch.compile without fullgraph)"
)
SCRIPTED = f"it is in code of torch.jit.script, where no label is recorded: {_ELSE}"
_EXPORTED = f"it is traced by torch.export or make_fx, where no label is recorded: {_ELSE}"
_TRACED = f"it runs under torch.jit.trace, where no label is recorded: {_ELSE}"
_TRANSFORMED = f"it runs under torch.func (vmap, grad, ...), where a tensor has no data of its own: {_ELSE}"
_CAPTURED = (
    "it runs while a device graph is captured, where nothing can be copied, and the graph's replay calls no Python: "
    "run without graphs, or label the graph's outputs"
)
_FAKE = f"it runs under FakeTensorMode, where tensors have no data: {_ELSE}"

_MAY_BREAK = ("checkpoint", "autograd")
"""Parts of names of the operators over functions that dynamo leaves to Python when their graph would break."""


def tracing_dynamo() -> Any | None:
    """Return dynamo's translator of the function that asks; None where dynamo does not trace it.

    To be called by a function that dynamo takes for a constant, so that it runs while dynamo traces the one that calls
    it. The names are private to torch: a version that has others seems to trace nothing.
    """
    tracing = sys.modules.get("torch._dynamo.symbolic_convert")
    if tracing is None or getattr(tracing.tls, "current_tx", None) is None:
        return None
    with suppress(Exception):
        return _innermost(tracing.InstructionTranslatorBase)
    return None


def _innermost(kind: type) -> Any:
    """Return the object of a kind of which a method is running, the innermost."""
    frame = sys._getframe(1)
    while not isinstance(translator := frame.f_locals.get("self"), kind):
        assert frame.f_back is not None
        frame = frame.f_back
    return translator


def must_not_break(asking: Any) -> bool:
    """Whether a break of the graph that is traced would raise."""
    with suppress(Exception):
        operators = [str(getattr(tracer, "source_target", "")) for tracer in asking.output.tracers[1:]]
        return bool(
            asking.one_graph
            or asking.error_on_graph_break
            or not all(any(part in operator for part in _MAY_BREAK) for operator in operators)
            or _in_transform(sys.modules["torch"])
        )
    return False


def traced_local(asking: Any, name: str) -> Any:
    """Return what a traced function has under a name; None where that is not known while tracing."""
    with suppress(Exception):
        return asking.symbolic_locals[name].as_python_constant()
    return None


def traced_site(asking: Any) -> str:
    """Return `file:line` of the traced call of the function that asks."""
    with suppress(Exception):
        return f"{asking.parent.f_code.co_filename}:{asking.parent.lineno}"
    return "compiled code"


def skip_tracing(*functions: Any) -> None:
    """Make dynamo compile neither these functions nor what they call, where they run after a break of the graph."""
    with suppress(Exception):
        frames = sys.modules["torch._dynamo.eval_frame"]
        for function in functions:
            strategy = frames.FrameExecStrategy(frames.FrameAction.SKIP, frames.FrameAction.SKIP)
            frames.set_code_exec_strategy(function.__code__, strategy)


def reason_not_copyable(torch: Any, value: Any) -> str:
    """Say why a torch.Tensor cannot be copied at this moment; "" where it can. Calls no operation of torch."""
    with suppress(AttributeError):  # versions of torch that cannot be asked
        if _in_transform(torch) and torch._C._functorch.is_functorch_wrapped_tensor(value):
            return _TRANSFORMED
        if torch._C._is_tracing():
            return _TRACED
        modes = torch._C._TorchDispatchModeKey
        if torch.compiler.is_compiling() or torch._C._get_dispatch_mode(modes.PROXY) is not None:
            return _EXPORTED
        fake = sys.modules.get("torch._subclasses.fake_tensor")
        if (fake is not None and isinstance(value, fake.FakeTensor)) or torch._C._get_dispatch_mode(
            modes.FAKE
        ) is not None:
            return _FAKE
        device = value.device.type
        if device in ("cuda", "npu") and getattr(torch, device).is_current_stream_capturing():
            return _CAPTURED
    return ""


def _in_transform(torch: Any) -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None

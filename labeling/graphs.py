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

DEVICE_GRAPHS = {"cuda": "CUDAGraph", "npu": "NPUGraph"}
"""Type of device -> class of its graphs, in the module of torch that has the device's name."""
_MAY_BREAK = ("checkpoint", "autograd")
"""Parts of the names of higher-order operators that dynamo leaves to Python where their graph would break."""


def tracing_dynamo() -> Any | None:
    """Return dynamo's translator of the public call that is being traced; None where dynamo does not trace it.

    Call it from a function that dynamo treats as a constant: that runs while dynamo traces the caller of the function.
    The names are private to torch; in a version with other names no call seems to be traced.
    """
    dynamo = sys.modules.get("torch._dynamo.symbolic_convert")
    if dynamo is None or getattr(dynamo.tls, "current_tx", None) is None:
        return None
    with suppress(Exception):
        return _innermost(dynamo.InstructionTranslatorBase)
    return None


def _innermost(kind: type) -> Any:
    """Return the innermost object of a class of which a method is running."""
    frame = sys._getframe(1)
    while not isinstance(translator := frame.f_locals.get("self"), kind):
        assert frame.f_back is not None
        frame = frame.f_back
    return translator


def must_not_break(translator: Any) -> bool:
    """Tell whether a break of the traced graph would raise."""
    with suppress(Exception):
        operators = [str(getattr(tracer, "source_target", "")) for tracer in translator.output.tracers[1:]]
        return bool(
            translator.one_graph
            or translator.error_on_graph_break
            or not all(any(part in operator for part in _MAY_BREAK) for operator in operators)
            or _in_transform(sys.modules["torch"])
        )
    return False


def traced_local(translator: Any, name: str) -> Any:
    """Return the value of a local of the traced function; None where it is not known while tracing."""
    with suppress(Exception):
        return translator.symbolic_locals[name].as_python_constant()
    return None


def traced_site(translator: Any) -> str:
    """Return `file:line` of the traced call."""
    with suppress(Exception):
        return f"{translator.parent.f_code.co_filename}:{translator.parent.lineno}"
    return "compiled code"


def skip_tracing(*functions: Any) -> None:
    """Keep dynamo from compiling these functions, and those that they call, where they run after a graph break."""
    with suppress(Exception):
        frames = sys.modules["torch._dynamo.eval_frame"]
        for function in functions:
            strategy = frames.FrameExecStrategy(frames.FrameAction.SKIP, frames.FrameAction.SKIP)
            frames.set_code_exec_strategy(function.__code__, strategy)


def reason_not_copyable(torch: Any, value: Any) -> str:
    """Return why a torch.Tensor cannot be copied at this moment; "" where it can. Calls no operation of torch."""
    with suppress(AttributeError):  # versions of torch without these functions
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
        if device in DEVICE_GRAPHS and getattr(torch, device).is_current_stream_capturing():
            return _CAPTURED
    return ""


def _in_transform(torch: Any) -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None

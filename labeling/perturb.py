"""Perturbation of golden's input in its last bit: the differences that a second golden run then shows are noise."""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any, TypeVar

from aclcmp.labeling import torchscript
from aclcmp.labeling.graphs import UNBREAKABLE, must_not_break, tracing_dynamo
from aclcmp.labeling.identity import PERTURB

_Tensor = TypeVar("_Tensor")

_seed = os.environ.get(PERTURB, "")
_calls = itertools.count()
_printed: set[str] = set()


def perturb(tensor: _Tensor) -> _Tensor:
    """Return the tensor itself, or in a run that measures noise one that differs from it in the last bit.

    Apply it to the model's first floating-point input, e.g. the embedded tokens, before golden computes anything:

        hidden = perturb(embed(tokens))

    A second golden run, in which the launcher sets ACLCMP_PERTURB to a seed, then shows by how much a right computation
    moves every label when its input is rounded otherwise (source: TTrace, arXiv 2506.09280). Without the variable this
    it returns the tensor as it is.

    Args:
        tensor: torch.Tensor or numpy array of any shape, device and floating point (or complex) dtype of
            aclcmp.labeling.shard.dtypes; of a DTensor the local tensor is changed.

    In such a run x becomes x * (1 + 2^-p * eps), rounded to its dtype, p one more than the bits of its mantissa, eps
    uniform in [-1, 1]. That moves about a third of the elements, to the next number. Zeros and non-finite values stay.
    eps comes from the seed and the number of the call: on all ranks, devices and versions of torch the n-th call
    changes tensors of the same shape in the same way. The result is a new tensor; gradients flow through it.

    Never raises. Integers, and values that are no tensors, are returned as they are, with one message; so are tensors
    in a compiled graph that must not break, or in TorchScript. Call it outside of compiled or captured code.
    """
    if not _seed or _skipped_in_graph():
        return tensor
    number = next(_calls)
    try:
        perturbed: _Tensor = _perturb_value(tensor, number)
        return perturbed
    except Exception as error:  # whatever it is, it must not reach the model
        _say(type(tensor).__name__, " ".join(str(error).split()) or type(error).__name__)
        return tensor


def _say(kind: str, why: str) -> None:
    if why not in _printed and sys.stderr is not None:
        _printed.add(why)
        sys.stderr.write(f"aclcmp: perturb leaves a {kind} as it is: {why}\n")


def _skipped_in_graph() -> bool:
    """Tell whether the call is traced into a graph that must not break; dynamo runs this while it traces the caller."""
    translator = tracing_dynamo()
    if translator is None or not must_not_break(translator):
        return False
    _say("Tensor", UNBREAKABLE)
    return True


_skipped_in_graph._dynamo_marked_constant = True  # type: ignore[attr-defined]
torchscript.substitute(
    perturb, torchscript.perturb, lambda: _say("Tensor", "it is in code of torch.jit.script") if _seed else None
)


def _perturb_value(tensor: Any, number: int) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor):
        if hasattr(tensor, "to_local") and hasattr(tensor, "placements"):
            local = _perturb_torch(torch, tensor.to_local(), number)
            whole = {"shape": tensor.shape, "stride": tensor.stride()}
            return type(tensor).from_local(local, tensor.device_mesh, tensor.placements, run_check=False, **whole)
        return _perturb_torch(torch, tensor, number)
    import numpy as np

    if isinstance(tensor, np.ndarray):
        return _perturb_numpy(np, tensor, number)
    raise TypeError("it is no torch.Tensor and no numpy array")


def _perturb_torch(torch: Any, tensor: Any, number: int) -> Any:
    name = str(tensor.dtype).removeprefix("torch.")
    wide = getattr(torch, _wide(name))
    noise = torch.from_numpy(_noise(name, tuple(tensor.shape), number)).to(tensor.device)
    x = tensor.to(wide)
    moved = (x + x * noise).to(tensor.dtype).to(wide)
    return torch.where(torch.isfinite(moved), moved, x).to(tensor.dtype)  # the largest numbers have no next number


def _perturb_numpy(np: Any, array: Any, number: int) -> Any:
    name = array.dtype.name
    wide = _wide(name)
    noise = _noise(name, array.shape, number)
    with np.errstate(all="ignore"):
        x = array.astype(wide)
        moved = (x + x * noise).astype(array.dtype).astype(wide)
        return np.where(np.isfinite(moved), moved, x).astype(array.dtype)


def _wide(name: str) -> str:
    """Return the type to compute in. The sum is rounded once, so float32 and float64 need no wider type."""
    from aclcmp.labeling.shard.dtypes import DTYPES, Kind

    dtype = DTYPES.get(name)
    if dtype is None or dtype.eps is None:
        raise TypeError(f"{name} has no last bit to change; perturb the first input of floating point")
    if dtype.kind is Kind.COMPLEX:
        return "complex128" if name == "complex128" else "complex64"
    return "float64" if name == "float64" else "float32"


def _noise(name: str, shape: tuple[int, ...], number: int) -> Any:
    """Return 2^-p * eps for every element: float64 for float64 and complex128, else float32."""
    import numpy as np

    from aclcmp.labeling.shard.dtypes import DTYPES

    kind: Any = np.float64 if name in ("float64", "complex128") else np.float32
    try:
        seed = int(_seed) % 2**64
    except ValueError:
        raise ValueError(f"{PERTURB}={_seed!r} is no integer") from None
    generator = np.random.default_rng([seed, number])
    eps = np.asarray(generator.random(shape, kind)) * kind(2) - kind(1)
    half_a_step = (DTYPES[name].eps or 0.0) / 2  # eps of a dtype is 2^-(bits of its mantissa)
    return np.asarray(eps * kind(half_a_step))

"""A quantised checkpoint as golden computes it: weights are what they stand for, inputs are rounded as the scheme says.

Linear layers whose inputs are rounded compute in float32, whatever the type of the model: the products of an engine's
kernel are exact, and its sums are rounded once. Where weights alone are quantised, engines compute in the model's type.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aclcmp.labeling.engines.quantised_config import Quantised, Scheme
from aclcmp.labeling.errors import AclcmpError

_PARTS = ("weight_scale", "weight_zero_point", "weight_packed", "weight_shape", "weight_g_idx")
"""Tensors beside a quantised weight."""
_INPUTS = ("input_scale", "input_zero_point")
_LARGEST_FP8 = 448.0


@dataclass(slots=True)
class QuantisedLayer:
    """A linear layer: how it is quantised, its weight [out, in] in float32, and the scale of its inputs if it is told.

    While it is not `on` it computes without quantisation: with `original`, the weight from which the checkpoint was
    made, where that is known.
    """

    scheme: Scheme
    weight: Any
    input_scale: Any = None
    input_zero_point: Any = None
    original: Any = None
    on: bool = True

    def compute(self, x: Any, bias: Any) -> Any:
        """Return the output for inputs [..., in], in their type."""
        from torch.nn.functional import linear

        told, values = self.scheme.inputs, x.float()
        if self.on and told is not None:
            values = round_inputs(values, told, self.input_scale, self.input_zero_point)
        weight = self.weight if self.on or self.original is None else self.original
        return linear(values, weight, None if bias is None else bias.float()).to(x.dtype)


@dataclass(slots=True)
class Checkpoint:
    """A quantised checkpoint: its tensors as they are stored, those that are not quantised, and the layers that are."""

    stored: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, QuantisedLayer] = field(default_factory=dict)
    """By the names of their modules."""

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """Yield the stored tensors, as a model yields its parameters: an engine holds these rows."""
        yield from self.stored.items()

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """Yield nothing: all linear layers are [out, in]."""
        yield from ()


def read_checkpoint(path: Path, schemes: Sequence[Scheme]) -> Checkpoint:
    """Read a folder of safetensors. Raises AclcmpError for what the schemes do not explain."""
    found = Checkpoint(read_tensors(path))
    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in found.stored.items():
        module, _, last = name.rpartition(".")
        if last in (*_PARTS, *_INPUTS):
            parts.setdefault(module, {})[last] = tensor
        else:
            found.state[name] = tensor
    for module, tensors in parts.items():
        weight = found.state.pop(f"{module}.weight", None)
        scheme = next((each for each in schemes if each.holds(module, "Linear")), None)
        if scheme is None:
            raise AclcmpError(f"{path}: {module} has scales, and no scheme of config.json is for it")
        if tensors.keys() & {"weight_g_idx"}:
            raise AclcmpError(f"{path}: {module} has its groups in an order of its own (weight_g_idx): not known")
        try:
            whole = dequantise(scheme.weights, weight, tensors)
        except (RuntimeError, KeyError, ValueError) as error:
            raise AclcmpError(f"{path}: {module} is not as {scheme.name} says: {error!s:.200}") from None
        scale, zero = (tensors.get(name) for name in _INPUTS)
        found.layers[module] = QuantisedLayer(scheme, whole, scale, zero)
    if bare := [name for name, tensor in found.state.items() if tensor.dtype.itemsize == 1]:
        raise AclcmpError(f"{path}: {bare[0]} is {found.state[bare[0]].dtype}, and has no scale")
    return found


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a folder of safetensors. Raises AclcmpError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = path / "model.safetensors.index.json"
    try:
        files = {"model.safetensors"}
        if index.exists():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if any(Path(name).name != name for name in files):
            raise AclcmpError(f"{index} names files of other folders")
        return {name: tensor for file in sorted(files) for name, tensor in load_file(path / file).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise AclcmpError(f"{path}: the safetensors cannot be read: {error!s:.300}") from None


def dequantise(told: Quantised, weight: Any, parts: Mapping[str, Any]) -> Any:
    """Return a weight [out, in] in float32.

    Args:
        told: how it is quantised.
        weight: the stored numbers, int8 or float8 [out, in]; None where `parts` has them packed.
        parts: "weight_scale" and, where they are, "weight_zero_point", "weight_packed", "weight_shape".

    Raises KeyError, RuntimeError or ValueError where they do not fit each other.
    """
    packed = weight is None
    if packed:
        out, columns = (int(each) for each in parts["weight_shape"])
        weight = unpack(parts["weight_packed"], told.bits, columns)[:out]
    numbers, scale = weight.float(), parts["weight_scale"].float()
    rows, columns = numbers.shape
    zero = parts.get("weight_zero_point")
    if zero is not None:
        zero = unpack(zero.t(), told.bits, rows).t() if packed and zero.dtype.itemsize == 4 else zero
        numbers = numbers - _spread(told, zero.float(), rows, columns)
    return numbers * _spread(told, scale, rows, columns)


def _spread(told: Quantised, scale: Any, rows: int, columns: int) -> Any:
    """Return scales as a tensor that broadcasts with [rows, columns]."""
    wanted = {
        "tensor": (1, 1),
        "channel": (rows, 1),
        "group": (rows, -(-columns // told.block[0])) if told.strategy == "group" else (),
        "block": tuple(-(-size // part) for size, part in zip((rows, columns), told.block, strict=False)),
    }[told.strategy]
    scale = scale.reshape(wanted)
    for axis, part in enumerate((1, *told.block) if told.strategy == "group" else told.block):
        scale = scale.repeat_interleave(part, dim=axis)
    return scale[:rows, :columns]


def unpack(packed: Any, bits: int, columns: int) -> Any:
    """Return signed numbers [n, columns] of int32 words [n, ceil(columns · bits / 32)], the lowest bits first."""
    import torch

    shifts = torch.arange(0, 32, bits)
    numbers = (packed.to(torch.int64)[..., None] >> shifts) & (2**bits - 1)
    return numbers.flatten(-2)[:, :columns] - 2 ** (bits - 1)


def round_inputs(x: Any, told: Quantised, scale: Any = None, zero: Any = None) -> Any:
    """Return float32 inputs [..., in] with the values that quantising leaves of them.

    Scales that are found at run time are those of the largest value (or of the range, if not symmetric) of each token,
    group or tensor; `scale` and `zero` are those that a checkpoint tells.
    """
    import torch

    shape = x.shape
    if told.strategy == "group":
        x = x.reshape(*shape[:-1], -1, told.block[0])
    low, high = (
        (-_LARGEST_FP8, _LARGEST_FP8)
        if told.kind == "float"
        else (-(2.0 ** (told.bits - 1)), 2.0 ** (told.bits - 1) - 1)
    )
    offset: Any = 0.0
    if not told.dynamic:
        if scale is None:
            raise AclcmpError("the inputs have a scale that is told, and the checkpoint has none (input_scale)")
        scale, offset = scale.float(), 0.0 if zero is None else zero.float()
    elif told.symmetric:
        largest = x.abs().amax() if told.strategy == "tensor" else x.abs().amax(-1, keepdim=True)
        scale = (largest / high).clamp_min(torch.finfo(torch.float32).tiny)
    else:
        ends = (
            (x.amin(), x.amax()) if told.strategy == "tensor" else (x.amin(-1, keepdim=True), x.amax(-1, keepdim=True))
        )
        scale = ((ends[1] - ends[0]) / (high - low)).clamp_min(torch.finfo(torch.float32).tiny)
        offset = (low - ends[0] / scale).round()
    numbers = x / scale
    if told.kind == "float":
        numbers = numbers.clamp(low, high).to(torch.float8_e4m3fn).float()
    else:
        numbers = (numbers.round() + offset).clamp(low, high) - offset
    return (numbers * scale).reshape(shape)


def put_layers(model: Any, layers: Mapping[str, QuantisedLayer]) -> None:
    """Let the quantised layers of a torch model compute as their scheme says. Raises AclcmpError where one is none."""
    modules = dict(model.named_modules())
    for name, layer in layers.items():
        if not hasattr(modules.get(name), "in_features"):
            raise AclcmpError(f"{name} is quantised, and is no linear layer of {type(model).__name__}")
        modules[name].forward = _forward_of(modules[name], layer)


def _forward_of(module: Any, layer: QuantisedLayer) -> Any:
    in_type_of_model = module.forward

    def forward(x: Any) -> Any:
        weights_only = layer.on and layer.scheme.inputs is None
        return in_type_of_model(x) if weights_only else layer.compute(x, module.bias)

    return forward


@contextmanager
def quantised_only(layers: Mapping[str, QuantisedLayer], names: Collection[str]) -> Iterator[None]:
    """Compute these layers as their scheme says, and the others without quantisation."""
    for name, layer in layers.items():
        layer.on = name in names
    try:
        yield
    finally:
        for layer in layers.values():
            layer.on = True


@contextmanager
def perturbed(model: Any, seed: int, precision: Any) -> Iterator[None]:
    """Change what the embedding of a torch model returns by at most half of the last bit of a type of torch.

    Where it lies near the middle of two numbers, what is quantised is then rounded otherwise.
    """
    import torch

    drawn = torch.Generator().manual_seed(seed)

    def change(_module: Any, _args: Any, output: Any) -> Any:
        noise = 2 * torch.rand(output.shape, generator=drawn, dtype=output.dtype) - 1
        return output * (1 + torch.finfo(precision).eps / 2 * noise)

    hook = model.get_input_embeddings().register_forward_hook(change)
    try:
        yield
    finally:
        hook.remove()

"""The other operations of a layer. Their weights are among their inputs, as in ATB."""

import torch
import torch.distributed as dist
from torch import Tensor

from .graph import Kernel, Scope, Tensors


def rms_norm(eps: float) -> Kernel:
    """Make the kernel that divides every token by its root mean square, computed in float32."""

    def function(hidden: Tensor, weight: Tensor) -> Tensor:
        hidden32 = hidden.float()
        return weight * (hidden32 / (hidden32.square().mean(-1, keepdim=True) + eps).sqrt()).to(hidden.dtype)

    return Kernel("RmsNormKernel", function)


def split_heads(head_dim: int, heads: int, key_heads: int) -> Kernel:
    """Make the kernel that takes query, key and value (batch, heads, tokens, head dim) from their fused projection."""

    def function(fused: Tensor) -> Tensors:
        each = fused.unflatten(-1, (-1, head_dim)).transpose(1, 2)
        return tuple(part.contiguous() for part in each.split((heads, key_heads, key_heads), dim=1))

    return Kernel("SplitHeadsKernel", function)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first channels, as many as `cos` and `sin` (batch, tokens, channels) have, by the tokens' positions."""
    turned = cos.shape[-1]
    # The halves of cos and sin are equal, as the framework makes them; a pair of channels shares one angle.
    cos, sin = (table[:, None, :, : turned // 2] for table in (cos, sin))
    even, odd = heads[..., 0:turned:2], heads[..., 1:turned:2]
    pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((pairs.flatten(-2), heads[..., turned:]), dim=-1)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return up * silu(gate) of a gate beside an up slice."""
    gate, up = gate_up.chunk(2, dim=-1)
    return up * torch.nn.functional.silu(gate)


def all_reduce(summand: Tensor) -> Tensor:
    """Return the sum of all ranks' summands."""
    total = summand.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


MATMUL = Kernel("MatmulKernel", lambda inputs, weight: inputs @ weight.T)
ADD = Kernel("AddKernel", torch.add)
ROPE = Kernel("RopeKernel", rotate)
SWIGLU = Kernel("SwigluKernel", swiglu)
ALL_REDUCE = Kernel("AllReduceKernel", all_reduce)


class Chain:
    """An operation of kernels one after the other; each takes the output before it and its share of the other inputs.

    `extra` tells how many inputs, weights for instance, each kernel takes beside that output.
    """

    def __init__(self, name: str, *kernels: Kernel, extra: tuple[int, ...]) -> None:
        self.name = name
        self._kernels = tuple(zip(kernels, extra, strict=True))

    def compute(self, scope: Scope, *inputs: Tensor) -> Tensors:
        """Return what the last kernel returns."""
        outputs, rest = inputs[:1], list(inputs[1:])
        for kernel, extra in self._kernels:
            outputs = scope.run(kernel, *outputs, *(rest.pop(0) for _ in range(extra)))
        return outputs


class RopeOperation:
    """Rotary position embedding of query and key."""

    name = "RopeOperation"

    def compute(self, scope: Scope, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> Tensors:
        """Return query and key, turned."""
        return scope.run(ROPE, query, cos, sin) + scope.run(ROPE, key, cos, sin)


LINEAR = Chain("LinearOperation", MATMUL, extra=(1,))
LINEAR_ALL_REDUCE = Chain("LinearAllReduceOperation", MATMUL, ALL_REDUCE, extra=(1, 0))
RESIDUAL = Chain("AddOperation", ADD, extra=(1,))
ACTIVATION = Chain("SwigluOperation", SWIGLU, extra=(0,))

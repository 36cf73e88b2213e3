"""Faults to plant in one layer of the actual model, each with the label and the ranks where it must show first."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import GlmForCausalLM
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb

Plant = Callable[[GlmForCausalLM, int], None]
"""Plants the fault in the layer of that index. Called after labelling, on the rank at fault or on all ranks."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    `label` has `{layer}` in place of the faulty layer's index. `planted_on_all` and `seen_on_all` say whether the fault
    sits on, and shows first on, every rank or only the one at fault.
    """

    simulates: str
    label: str
    planted_on_all: bool
    seen_on_all: bool
    plant: Plant
    min_ranks: int = 1

    def first_label(self, layer: int) -> str:
        """Return the id of the first label that is wrong when `layer` has the fault."""
        return self.label.format(layer=layer)

    def first_ranks(self, rank: int, ranks: int) -> tuple[int, ...]:
        """Return the ranks, of `ranks`, whose first label is wrong when `rank` is at fault."""
        return tuple(range(ranks)) if self.seen_on_all else (rank,)


def _local(weight: Tensor) -> Tensor:
    """Return this rank's slice; writing to it changes the weight."""
    weight = weight.detach()
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _permuted_slice(model: GlmForCausalLM, layer: int) -> None:
    _gate, up = _local(model.model.layers[layer].mlp.gate_up_proj.weight).chunk(2)
    up.copy_(up.roll(1, dims=0))


def _swapped_heads(model: GlmForCausalLM, layer: int) -> None:
    attn = model.model.layers[layer].self_attn
    heads = _local(attn.o_proj.weight).unflatten(1, (-1, attn.head_dim))
    heads.copy_(heads.roll(1, dims=1))


def _double_reduce(model: GlmForCausalLM, layer: int) -> None:
    def reduce_again(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        dist.all_reduce(output)

    model.model.layers[layer].mlp.down_proj.register_forward_hook(reduce_again)


def _missing_reduce(model: GlmForCausalLM, layer: int) -> None:
    def keep_own_part(module: nn.Linear, inputs: tuple[Tensor], _reduced: Tensor) -> Tensor:
        # The all-reduce has taken place, so no other rank waits for this one.
        return nn.functional.linear(inputs[0], _local(module.weight))

    model.model.layers[layer].self_attn.o_proj.register_forward_hook(keep_own_part)


def _rope_off_by_one(model: GlmForCausalLM, layer: int) -> None:
    attn = model.model.layers[layer].self_attn

    def turn_once_more(_module: nn.Module, _inputs: object, queries: Tensor) -> Tensor:
        # Rotations add up: turning the queries by position 1 before RoPE is RoPE at their position plus one.
        cos, sin = model.model.rotary_emb(queries, torch.ones(1, 1, dtype=torch.long))
        heads = queries.unflatten(-1, (-1, attn.head_dim))
        turned, _ = apply_rotary_pos_emb(heads, heads, cos, sin, unsqueeze_dim=2)
        return turned.flatten(-2)

    attn.q_proj.register_forward_hook(turn_once_more)  # after the label's hook: what q_proj computes is still right


def _scale(model: GlmForCausalLM, layer: int) -> None:
    def enlarge(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output * 1.04

    model.model.layers[layer].mlp.down_proj.register_forward_hook(enlarge)


def _one_token(model: GlmForCausalLM, layer: int) -> None:
    def repeat_token(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        token = output.shape[1] // 2
        output[:, token] = output[:, token - 1]
        return output

    model.model.layers[layer].register_forward_hook(repeat_token, prepend=True)


def _nan(model: GlmForCausalLM, layer: int) -> None:
    attn = model.model.layers[layer].self_attn

    def lose_head(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        context = inputs[0].clone()
        context[:, context.shape[1] // 2, : attn.head_dim] = torch.nan
        return (context,)

    attn.o_proj.register_forward_pre_hook(lose_head, prepend=True)


FAULTS = {
    "permuted-slice": Fault(
        simulates="a conversion script permutes the rows of one rank's slice of the MLP's up projection",
        label="layers.{layer}.mlp.act.local",
        planted_on_all=False,
        seen_on_all=False,
        plant=_permuted_slice,
    ),
    "swapped-heads": Fault(
        simulates="one rank's slice of the attention's output projection has its heads in another order",
        label="layers.{layer}.attn.out",
        planted_on_all=False,
        seen_on_all=True,
        plant=_swapped_heads,
    ),
    "double-reduce": Fault(
        simulates="the MLP's output is all-reduced by the layer and again by the framework",
        label="layers.{layer}.mlp.out",
        planted_on_all=True,
        seen_on_all=True,
        plant=_double_reduce,
        min_ranks=2,
    ),
    "missing-reduce": Fault(
        simulates="one rank reads the attention's output before the all-reduce has arrived: its own summand",
        label="layers.{layer}.attn.out",
        planted_on_all=False,
        seen_on_all=False,
        plant=_missing_reduce,
        min_ranks=2,
    ),
    "rope-off-by-one": Fault(
        simulates="the queries' position ids are one too high",
        label="layers.{layer}.attn.context.local",
        planted_on_all=True,
        seen_on_all=True,
        plant=_rope_off_by_one,
    ),
    "scale": Fault(
        simulates="a dequantisation scale is 4 % too large",
        label="layers.{layer}.mlp.out",
        planted_on_all=True,
        seen_on_all=True,
        plant=_scale,
    ),
    "one-token": Fault(
        simulates="a kernel's block boundary is off by one on one rank: a token gets its predecessor's row",
        label="layers.{layer}.out",
        planted_on_all=False,
        seen_on_all=False,
        plant=_one_token,
    ),
    "nan": Fault(
        simulates="a fully masked softmax row on one rank: NaN for one token in its first head",
        label="layers.{layer}.attn.context.local",
        planted_on_all=False,
        seen_on_all=False,
        plant=_nan,
    ),
}
"""All faults by name."""

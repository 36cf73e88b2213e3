"""The three granularities: the part of the golden model that the library replaces, and the labels of both sides.

In each of them the golden model computes on as if nothing were replaced. The library runs beside it on the same inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from golden import label_golden
from paths import low_level_paths
from standin import ChatGlmLayerEncoder, ChatGlmModelEncoder, Heads, LayerWeights, Root, SelfAttentionOperation, plant
from torch import Tensor, nn
from transformers import GlmForCausalLM

from aclcmp import gen_id, set_label

RunBoth = Callable[[Tensor], object]
"""Runs both sides on token ids (1, tokens), labelling them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """This rank, the levels to label, and the fault to plant in its library, if any."""

    rank: int
    ranks: int
    device: int
    high: bool
    low: bool
    fault: str | None
    faulty_layer: int


def replace_op(golden: GlmForCausalLM, setting: Setting) -> RunBoth:
    """Replace the attention operation of every layer. High level: its inputs and output; low level: its kernels."""
    roots = []
    for layer in range(len(golden.model.layers)):
        operation = SelfAttentionOperation()
        _plant(operation, layer, setting)
        roots.append(Root(operation, number=layer, device=setting.device))

    def run_operation(layer: int, *query_key_value: Tensor) -> None:
        inputs = [heads.chunk(setting.ranks, dim=1)[setting.rank] for heads in query_key_value]
        _label_inside("op", layer, setting)
        (context,) = roots[layer](*inputs)
        if setting.high:
            for name, tensor in zip(("q", "k", "v", "context"), (*inputs, context), strict=True):
                set_label("acl", f"layers.{layer}.attn.{name}", tensor)

    label_golden(golden, _names("op", ("attn.q", "attn.k", "attn.v", "attn.context"), setting), run_operation)
    return golden


def replace_layer(golden: GlmForCausalLM, setting: Setting) -> RunBoth:
    """Replace every layer. High level: its input and output; low level: its operations and their kernels."""
    label_golden(golden, _names("layer", ("in", "out"), setting))

    def replace(index: int, module: nn.Module) -> None:
        root = Root(_library_layer(golden, index, setting), number=index, device=setting.device)

        def run_layer(_module: nn.Module, inputs: tuple[Tensor], options: dict[str, Any], _output: Tensor) -> None:
            _label_inside("layer", index, setting)
            (output,) = root(inputs[0], *options["position_embeddings"])
            if setting.high:
                set_label("acl", f"layers.{index}.in", inputs[0])
                set_label("acl", f"layers.{index}.out", output)

        module.register_forward_hook(run_layer, with_kwargs=True)

    for index, module in enumerate(golden.model.layers):
        replace(index, module)
    return golden


def replace_model(golden: GlmForCausalLM, setting: Setting) -> RunBoth:
    """Replace all layers and the last norm. High level: their input and output; low level: everything inside."""
    layers = range(len(golden.model.layers))
    label_golden(golden, _names("model", (), setting))
    model = ChatGlmModelEncoder(
        [_library_layer(golden, index, setting) for index in layers],
        golden.model.norm.weight,
        golden.model.norm.variance_epsilon,
    )
    root = Root(model, device=setting.device)

    def run_both(ids: Tensor) -> None:
        embedded = golden.model.embed_tokens(ids)
        if setting.high:
            set_label("pta", "model.in", embedded)
        hidden_states = golden.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        for layer in layers:
            _label_inside("model", layer, setting)
        cos, sin = golden.model.rotary_emb(embedded, torch.arange(ids.shape[1])[None])
        (acl_hidden_states,) = root(embedded, cos, sin)
        if setting.high:
            set_label("acl", "model.in", embedded)
            set_label("pta", "model.out", hidden_states)
            set_label("acl", "model.out", acl_hidden_states)
            data_id = gen_id()  # equal on all ranks, since they run the same code; a name of your own says more
            set_label("pta", data_id, golden.lm_head(hidden_states))
            set_label("acl", data_id, golden.lm_head(acl_hidden_states))

    return run_both


GRANULARITIES = {"op": replace_op, "layer": replace_layer, "model": replace_model}
"""Each builds this rank's library, adds the labels, and returns what runs both sides."""


def _names(granularity: str, high: tuple[str, ...], setting: Setting) -> set[str]:
    """Return the names of a layer's tensors to label on the golden side."""
    low = low_level_paths(granularity, 0)
    return {*(high if setting.high else ()), *(low if setting.low else ())}


def _label_inside(granularity: str, layer: int, setting: Setting) -> None:
    """Tell the tool, and through it the library, which files of the dump are wanted; runs before the library."""
    if setting.low:
        for name, path in low_level_paths(granularity, layer).items():
            set_label("acl", f"layers.{layer}.{name}", tensor_path=path)


def _library_layer(golden: GlmForCausalLM, index: int, setting: Setting) -> ChatGlmLayerEncoder:
    """Build a layer of the library with this rank's slices of the golden weights."""
    layer, config = golden.model.layers[index], golden.config
    attn, mlp = layer.self_attn, layer.mlp

    def mine(weight: Tensor, dim: int = 0) -> Tensor:
        return weight.detach().chunk(setting.ranks, dim=dim)[setting.rank]

    gate, up = mlp.gate_up_proj.weight.chunk(2)
    projections = (attn.q_proj, attn.k_proj, attn.v_proj)
    weights = LayerWeights(
        input_norm=layer.input_layernorm.weight,
        qkv=torch.cat([mine(projection.weight) for projection in projections]),
        qkv_bias=torch.cat([mine(projection.bias) for projection in projections]),
        attention_out=mine(attn.o_proj.weight, dim=1),
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=torch.cat([mine(gate), mine(up)]),
        down=mine(mlp.down_proj.weight, dim=1),
    )
    heads = Heads(
        config.num_attention_heads // setting.ranks, config.num_key_value_heads // setting.ranks, config.head_dim
    )
    built = ChatGlmLayerEncoder(weights, heads, layer.input_layernorm.variance_epsilon)
    _plant(built.attention, index, setting)
    return built


def _plant(operation: SelfAttentionOperation, layer: int, setting: Setting) -> None:
    if setting.fault is not None and layer == setting.faulty_layer:
        plant(operation, setting.fault)

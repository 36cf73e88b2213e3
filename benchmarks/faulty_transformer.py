"""A Qwen3 of transformers with random weights, in which hooks put other kernels, tensor parallelism and faults.

Golden is the library's own code with eager attention, and hooks that only label. In any other run the hook of a module
computes its output anew: with another legitimate kernel, in slices as each rank has them, with a planted fault. All
ranks are in one process. Labels are the outputs of modules under their own names, nothing between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from planting import NO_FAULT, Fault, Recorded, Setting
from torch import Tensor, nn
from transformers import AttentionInterface, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

TOKENS = 48
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD, VOCAB = 128, 384, 16, 8, 4, 16, 512

FAULTS: Mapping[str, tuple[str, ...]] = {
    "rope off by one": ("self_attn.o_proj",),
    "rope missing on a head": ("self_attn.o_proj",),
    "scaled by 1.04": ("self_attn.o_proj",),
    "one token wrong": ("self_attn.o_proj",),
    "slice permuted": ("self_attn.v_proj",),
    "reduced twice": ("mlp.down_proj",),
    "reduction missing": ("mlp.down_proj",),
    "scores not scaled": ("self_attn.o_proj",),
    "rows shifted": ("self_attn.o_proj",),
    "saturated": ("mlp.gate_proj",),
    "mask off by one": ("self_attn.o_proj",),
    "gate and up swapped": ("mlp.gate_proj", "mlp.up_proj"),
    "offset": ("mlp.down_proj",),
    "heads swapped": ("self_attn.o_proj",),
    "norm eps 0.1": ("post_attention_layernorm",),
    "cast to float8": ("mlp.up_proj",),
    "heads of another group": ("self_attn.o_proj",),
    "weight of q_norm missing": ("self_attn.q_norm",),
}
"""Each fault, and the label of the layer that is wrong first (then those that are wrong by themselves as well)."""
NAME = "model.layers.{}.{}"
"""How a label of a layer is called: layer, module."""

_LABELLED = (
    *("input_layernorm", "self_attn.q_proj", "self_attn.q_norm", "self_attn.k_proj", "self_attn.k_norm"),
    *("self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj"),
    *("mlp.down_proj", ""),
)
"""Modules of a layer that are labelled; "" is the layer."""
_SWAP = {"mlp.gate_proj": "mlp.up_proj", "mlp.up_proj": "mlp.gate_proj"}
_BY_COLUMNS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_BY_ROWS = ("self_attn.o_proj", "mlp.down_proj")
_BY_HEADS = ("self_attn.q_norm", "self_attn.k_norm")
_NORMS = ("input_layernorm", "post_attention_layernorm", "norm")
_CHUNK = 16
"""Tokens that another kernel of a matmul takes at a time."""


def subject(seed: int, *, outlier: bool) -> Callable[[Setting], Recorded]:
    """Return a function that runs the model with the weights and tokens of this seed."""
    tokens = torch.randint(0, VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
    models: dict[torch.dtype, Qwen3ForCausalLM] = {}

    def run(setting: Setting) -> Recorded:
        if setting.dtype not in models:
            models[setting.dtype] = _model(seed, outlier=outlier).to(setting.dtype)
        return _record(models[setting.dtype], tokens, setting)

    return run


def _model(seed: int, *, outlier: bool) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        tie_word_embeddings=False,
    )
    model = Qwen3ForCausalLM(config).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            normal = torch.randn(weight.shape, generator=random)
            scale = 1.0 if "embed" in name else weight.shape[-1] ** -0.5
            weight.copy_(normal * scale if weight.dim() > 1 else 1 + 0.1 * normal)
        if outlier:
            model.model.embed_tokens.weight[:, 7] *= 50
    return model


def _record(model: Qwen3ForCausalLM, tokens: Tensor, setting: Setting) -> Recorded:
    """Run the model with the hooks of a setting, and remove them again."""
    recorded = Recorded()
    golden = setting == Setting(setting.dtype)
    AttentionInterface.register("planted", partial(_attention, setting, model.model.rotary_emb.inv_freq))
    model.set_attn_implementation("eager" if golden else "planted")
    hooks = []

    def hook(name: str, path: str, fault: Fault = NO_FAULT) -> None:
        swapped = fault.kind == "gate and up swapped" and path in _SWAP
        kernel_of = model.get_submodule(name.replace(path, _SWAP[path]) if swapped else name)

        def label_output(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            parts = [out] if golden else _kernel(kernel_of, path, args[0], out, setting, fault)
            flat = [part.flatten(2) for part in parts]
            recorded.label(name, flat if len(flat) == setting.ranks else flat * setting.ranks)
            return torch.cat(parts, 2) if len(parts) > 1 else parts[0]

        hooks.append(model.get_submodule(name).register_forward_hook(label_output))

    hook("model.embed_tokens", "")
    for layer in range(LAYERS):
        for path in _LABELLED:
            hook(NAME.format(layer, path).rstrip("."), path, setting.at(layer))
    hook("model.norm", "norm")
    hook("lm_head", "lm_head")
    try:
        with torch.no_grad():
            model(tokens, use_cache=False)
    finally:
        for each in hooks:
            each.remove()
    return recorded


def _kernel(module: Any, path: str, x: Tensor, out: Tensor, setting: Setting, fault: Fault) -> list[Tensor]:
    """Compute a module's output from its input `x`: one tensor, or each rank's slice of it."""
    ranks = range(setting.ranks)
    if path in _BY_COLUMNS:
        slices = module.weight.chunk(setting.ranks, 0)
        return [_plant_in_slice(_linear(x, slices[rank], setting), path, fault.on(rank)) for rank in ranks]
    if path in _BY_ROWS:
        parts = zip(x.chunk(setting.ranks, -1), module.weight.chunk(setting.ranks, 1), strict=True)
        return [_sum_summands([_linear(part, weight, setting) for part, weight in parts], path, fault)]
    if path in _BY_HEADS:
        missing = path == "self_attn.q_norm" and fault.kind == "weight of q_norm missing"
        weight = torch.ones_like(module.weight) if missing else module.weight
        return [_norm(part, weight, module.variance_epsilon, setting) for part in x.chunk(setting.ranks, 2)]
    if path in _NORMS:
        other = path == "post_attention_layernorm" and fault.kind == "norm eps 0.1"
        return [_norm(x, module.weight, 0.1 if other else module.variance_epsilon, setting)]
    return [_linear(x, module.weight, setting)] if path == "lm_head" else [out]


def _linear(x: Tensor, weight: Tensor, setting: Setting) -> Tensor:
    if not setting.other_kernels:
        return nn.functional.linear(x, weight)
    half = x.shape[-1] // 2
    chunks = [c[..., :half] @ weight[:, :half].T + c[..., half:] @ weight[:, half:].T for c in x.split(_CHUNK, 1)]
    return torch.cat(chunks, 1)


def _plant_in_slice(out: Tensor, path: str, fault: str) -> Tensor:
    if fault == "slice permuted" and path == "self_attn.v_proj":
        return out.flip(-1)
    if fault == "saturated" and path == "mlp.gate_proj":
        return out.clamp(-0.5, 0.5)
    if fault == "cast to float8" and path == "mlp.up_proj":
        return out.to(torch.float8_e4m3fn).to(out.dtype)
    return out


def _sum_summands(summands: list[Tensor], path: str, fault: Fault) -> Tensor:
    """Add up the ranks' summands of a matmul."""
    kind = fault.kind if path == "mlp.down_proj" else ""
    if kind == "reduction missing" and len(summands) > 1:
        return summands[fault.rank]
    out = summands[0]
    for each in summands[1:]:
        out = out + each
    if kind == "reduced twice":
        return out * 2
    if kind == "reduction missing":
        return out * 0.5
    if kind == "offset":
        return out + 0.5 * out.float().std().to(out.dtype)
    return out


def _norm(x: Tensor, weight: Tensor, eps: float, setting: Setting) -> Tensor:
    wide = x.float()
    if setting.other_kernels:
        return ((wide * weight.float()) / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def _attention(
    setting: Setting,
    frequencies: Tensor,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as each rank does with its heads; (batch, heads, tokens, size) to (batch, tokens, heads, size)."""
    fault = setting.at(module.layer_idx)
    parts = zip(*(each.chunk(setting.ranks, 1) for each in (query, key, value)), strict=True)
    outs = [_of_heads(q, k, v, frequencies, scaling, setting, fault.on(rank)) for rank, (q, k, v) in enumerate(parts)]
    return torch.cat(outs, 2), None


def _of_heads(
    q: Tensor, k: Tensor, v: Tensor, frequencies: Tensor, scaling: float, setting: Setting, fault: str
) -> Tensor:
    tokens = q.shape[2]
    if fault == "rope off by one":
        q = _rotate_further(q, torch.ones(tokens), frequencies)
    if fault == "rope missing on a head":
        q = torch.cat([_rotate_further(q[:, :1], -torch.arange(tokens), frequencies), q[:, 1:]], 1)
    groups = q.shape[1] // k.shape[1]
    if fault == "heads of another group":
        k, v = k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1)
    else:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scale = 1.0 if fault == "scores not scaled" else scaling
    mask = torch.full((tokens, tokens), -math.inf).triu(2 if fault == "mask off by one" else 1).to(q.dtype)
    if setting.other_kernels:
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        scores = torch.matmul(q, k.transpose(2, 3)) * scale + mask
        out = torch.matmul(nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype), v)
    out = out.transpose(1, 2)
    if fault == "heads swapped":
        out = out[:, :, [1, 0, *range(2, out.shape[2])]]
    if fault == "scaled by 1.04":
        out = out * 1.04
    if fault == "one token wrong":
        out = out.clone()
        out[:, tokens // 2] = out[:, tokens // 2].flip(-1)
    if fault == "rows shifted":
        out = out.roll(1, 1)
    return out


def _rotate_further(x: Tensor, positions: Tensor, frequencies: Tensor) -> Tensor:
    """Rotate each token further, by `positions` more."""
    angles = torch.outer(positions.float(), frequencies).repeat(1, 2)[None]
    return apply_rotary_pos_emb(x, x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))[0]

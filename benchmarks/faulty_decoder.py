"""A decoder in plain torch, in which any kernel can be replaced by another legitimate one or by a faulty one.

It has pre-norms, rotary positions, causal attention and a gated MLP. Its weights are random; on request one channel of
the residual stream is 50 times as large as the others. Tensor parallelism runs in one process: each rank's slices one
after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from planting import NO_FAULT, Fault, Recorded, Setting
from torch import Tensor

TOKENS = 48
HIDDEN, HEADS, FFN, LAYERS, VOCAB = 256, 8, 512, 16, 512
HEAD = HIDDEN // HEADS


def weights(seed: int, *, outlier: bool) -> dict[str, Tensor]:
    """Return random weights in float32."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=random) * scale

    found = {"embed": normal(VOCAB, HIDDEN, scale=1.0), "head": normal(VOCAB, HIDDEN, scale=HIDDEN**-0.5)}
    if outlier:
        found["embed"][:, 7] *= 50
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "o"):
            found[f"{layer}.{name}"] = normal(HIDDEN, HIDDEN, scale=HIDDEN**-0.5)
        for name, shape in (("gate", (FFN, HIDDEN)), ("up", (FFN, HIDDEN)), ("down", (HIDDEN, FFN))):
            found[f"{layer}.{name}"] = normal(*shape, scale=shape[1] ** -0.5)
        for name in ("norm1", "norm2"):
            found[f"{layer}.{name}"] = 1 + 0.1 * normal(HIDDEN, scale=1.0)
    found["norm"] = 1 + 0.1 * normal(HIDDEN, scale=1.0)
    return found


FAULTS: Mapping[str, tuple[str, ...]] = {
    "rope off by one": ("attn",),
    "rope missing on a head": ("attn",),
    "scaled by 1.04": ("attn",),
    "one token wrong": ("attn",),
    "slice permuted": ("act",),
    "reduced twice": ("mlp",),
    "reduction missing": ("mlp",),
    "scores not scaled": ("attn",),
    "rows shifted": ("attn",),
    "saturated": ("act",),
    "mask off by one": ("attn",),
    "gate and up swapped": ("act",),
    "offset": ("mlp",),
    "heads swapped": ("attn",),
    "norm eps 0.1": ("norm2",),
    "cast to float8": ("act",),
}
"""Each fault, with the kind of label that is wrong first, then other kinds that are wrong by themselves."""
NAME = "layers.{}.{}"
"""Name of a label of a layer, from its layer and kind."""


def subject(seed: int, *, outlier: bool) -> Callable[[Setting], Recorded]:
    """Return a function that runs the decoder with the weights and tokens of this seed."""
    state = weights(seed, outlier=outlier)
    tokens = torch.randint(0, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(seed))
    return lambda setting: run(state, tokens, setting)


def run(state: Mapping[str, Tensor], tokens: Tensor, setting: Setting) -> Recorded:
    """Run the decoder and label what each kernel returns, sharded tensors as each rank's slice."""
    recorded = Recorded()
    weight = {name: tensor.to(setting.dtype) for name, tensor in state.items()}
    hidden = weight["embed"][tokens]
    recorded.label("embed", [hidden] * setting.ranks)
    for layer in range(LAYERS):
        here = setting.at(layer)
        name = f"layers.{layer}."
        normed = _norm(hidden, weight[f"{layer}.norm1"], setting, 1e-6)
        recorded.label(f"{name}norm1", [normed] * setting.ranks)
        attended = []
        for rank in range(setting.ranks):
            rows = slice(rank * HIDDEN // setting.ranks, (rank + 1) * HIDDEN // setting.ranks)
            q, k, v = (_linear(normed, weight[f"{layer}.{each}"][rows], setting) for each in "qkv")
            attended.append(_attention(q, k, v, setting, here.on(rank)))
        recorded.label(f"{name}attn", attended)
        out = _project_and_reduce(attended, weight[f"{layer}.o"], setting, NO_FAULT)
        recorded.label(f"{name}o", [out] * setting.ranks)
        hidden = hidden + out
        recorded.label(f"{name}resid1", [hidden] * setting.ranks)
        normed = _norm(hidden, weight[f"{layer}.norm2"], setting, 0.1 if here.kind == "norm eps 0.1" else 1e-6)
        recorded.label(f"{name}norm2", [normed] * setting.ranks)
        acts = []
        for rank in range(setting.ranks):
            rows = slice(rank * FFN // setting.ranks, (rank + 1) * FFN // setting.ranks)
            gate, up = (_linear(normed, weight[f"{layer}.{each}"][rows], setting) for each in ("gate", "up"))
            acts.append(_activate(gate, up, here.on(rank)))
        recorded.label(f"{name}act", acts)
        out = _project_and_reduce(acts, weight[f"{layer}.down"], setting, here)
        recorded.label(f"{name}mlp", [out] * setting.ranks)
        hidden = hidden + out
        recorded.label(f"{name}resid2", [hidden] * setting.ranks)
    normed = _norm(hidden, weight["norm"], setting, 1e-6)
    recorded.label("norm", [normed] * setting.ranks)
    recorded.label("logits", [_linear(normed, weight["head"], setting)] * setting.ranks)
    return recorded


def _norm(x: Tensor, weight: Tensor, setting: Setting, eps: float) -> Tensor:
    wide = x.float()
    if setting.other_kernels:
        return ((wide * weight.float()) / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def _linear(x: Tensor, weight: Tensor, setting: Setting) -> Tensor:
    if not setting.other_kernels:
        return x @ weight.T
    half = x.shape[-1] // 2
    return x[..., :half] @ weight[:, :half].T + x[..., half:] @ weight[:, half:].T


def _rope(x: Tensor, shift: int, but: int | None = None) -> Tensor:
    """Rotate (tokens, heads, size) by position."""
    tokens, _, size = x.shape
    angles = torch.outer(torch.arange(tokens) + shift, 1e4 ** (-torch.arange(0, size, 2).float() / size))[:, None, :]
    first, second = x[..., : size // 2].float(), x[..., size // 2 :].float()
    cos, sin = angles.cos(), angles.sin()
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
    if but is not None:
        turned[:, but] = x[:, but]
    return turned


def _attention(q: Tensor, k: Tensor, v: Tensor, setting: Setting, fault: str) -> Tensor:
    tokens = q.shape[0]
    q, k, v = (each.reshape(tokens, -1, HEAD) for each in (q, k, v))
    q = _rope(q, 1 if fault == "rope off by one" else 0, 0 if fault == "rope missing on a head" else None)
    k = _rope(k, 0)
    scale = 1.0 if fault == "scores not scaled" else HEAD**-0.5
    mask = torch.full((tokens, tokens), -math.inf).triu(2 if fault == "mask off by one" else 1)
    scores = torch.einsum("qhd,khd->hqk", q, k)
    if setting.other_kernels:
        wide = scores.float() * scale + mask
        shares = torch.exp(wide - wide.amax(-1, keepdim=True))
        out = torch.einsum("hqk,khd->qhd", shares.to(v.dtype), v)
        out = (out.float() / shares.sum(-1).T[..., None]).to(v.dtype)
    else:
        shares = torch.softmax((scores * scale).float() + mask, -1).to(v.dtype)
        out = torch.einsum("hqk,khd->qhd", shares, v)
    if fault == "heads swapped":
        out = out[:, [1, 0, *range(2, out.shape[1])]]
    out = out.reshape(tokens, -1)
    if fault == "scaled by 1.04":
        out = out * 1.04
    if fault == "one token wrong":
        out = out.clone()
        out[tokens // 2] = out[tokens // 2].flip(-1)
    if fault == "rows shifted":
        out = out.roll(1, 0)
    return out


def _activate(gate: Tensor, up: Tensor, fault: str) -> Tensor:
    if fault == "gate and up swapped":
        gate, up = up, gate
    act = torch.nn.functional.silu(gate) * up
    if fault == "slice permuted":
        act = act.flip(-1)
    if fault == "saturated":
        act = act.clamp(-0.5, 0.5)
    if fault == "cast to float8":
        act = act.to(torch.float8_e4m3fn).to(act.dtype)
    return act


def _project_and_reduce(parts: list[Tensor], weight: Tensor, setting: Setting, fault: Fault) -> Tensor:
    """Multiply each rank's slice with its columns of the weight, and add up over ranks."""
    width = weight.shape[1] // len(parts)
    summands = [_linear(part, weight[:, rank * width : (rank + 1) * width], setting) for rank, part in enumerate(parts)]
    if fault.kind == "reduction missing" and len(summands) > 1:
        return summands[fault.rank]
    out = summands[0]
    for each in summands[1:]:
        out = out + each
    if fault.kind == "reduced twice" or (fault.kind == "reduction missing" and len(summands) == 1):
        out = out * (2 if fault.kind == "reduced twice" else 0.5)
    if fault.kind == "offset":
        out = out + 0.5 * out.float().std().to(out.dtype)
    return out

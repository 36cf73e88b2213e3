"""One rank of SmolLM2 as a network of other names, with fused projections that are cut over ranks; or golden's."""

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from aclcmp import watch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from trained import MODELS, TEXTS

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def linear(*weights: Tensor, dim: int = 0) -> nn.Linear:
    """Return a layer without bias that holds this rank's slices of weights, one below the other."""
    weight = torch.cat([each.detach().chunk(WORLD, dim)[RANK] for each in weights])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.contiguous())
    return layer


def reduced(summand: Tensor) -> Tensor:
    """Return the sum over the ranks."""
    if WORLD > 1:
        dist.all_reduce(summand)
    return summand


class Norm(nn.Module):
    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(norm.weight.detach().clone()), norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Attention(nn.Module):
    reduce = staticmethod(reduced)

    def __init__(self, golden: Any) -> None:
        super().__init__()
        self.size = golden.head_dim
        self.wqkv = linear(golden.q_proj.weight, golden.k_proj.weight, golden.v_proj.weight)
        self.wo = linear(golden.o_proj.weight, dim=1)
        self.cuts = [each.out_features // WORLD for each in (golden.q_proj, golden.k_proj, golden.v_proj)]

    def forward(self, x: Tensor, turns: Any) -> Tensor:
        q, k, v = (each.unflatten(-1, (-1, self.size)).transpose(1, 2) for each in self.wqkv(x).split(self.cuts, -1))
        q, k = apply_rotary_pos_emb(q, k, *turns)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.reduce(self.wo(mixed.transpose(1, 2).flatten(2)))


class Perceptron(nn.Module):
    def __init__(self, golden: Any) -> None:
        super().__init__()
        self.w13 = linear(golden.gate_proj.weight, golden.up_proj.weight)
        self.w2 = linear(golden.down_proj.weight, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w13(x).chunk(2, -1)
        return reduced(self.w2(nn.functional.silu(gate) * up))


class Block(nn.Module):
    def __init__(self, golden: Any) -> None:
        super().__init__()
        self.ln_1, self.attn = Norm(golden.input_layernorm), Attention(golden.self_attn)
        self.ln_2, self.mlp = Norm(golden.post_attention_layernorm), Perceptron(golden.mlp)

    def forward(self, x: Tensor, turns: Any) -> Tensor:
        x = x + self.attn(self.ln_1(x), turns)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, golden: Any) -> None:
        super().__init__()
        self.wte = nn.Embedding.from_pretrained(golden.model.embed_tokens.weight.detach())
        self.h = nn.ModuleList(map(Block, golden.model.layers))
        self.ln_f, self.head = Norm(golden.model.norm), nn.Linear(*golden.lm_head.weight.T.shape, bias=False)
        self.head.weight = self.wte.weight
        self.turns = golden.model.rotary_emb

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        turns = self.turns(x, torch.arange(tokens.shape[1])[None])
        for block in self.h:
            x = block(x, turns)
        return self.head(self.ln_f(x))


def main() -> None:
    """Run this rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["golden", "actual", "both"])
    parser.add_argument("--fault", choices=["layer", "reduction"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if WORLD > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    golden = MODELS["smollm2"].model(torch.float32, "eager")
    golden.model.layers = golden.model.layers[:3]
    golden.config.num_hidden_layers = 3
    models = {"golden": golden, "actual": Transformer(golden)}
    if given.fault == "layer":  # the loader puts layer 2's projection into layer 0
        models["actual"].h[0].attn.wo.weight.data.copy_(models["actual"].h[2].attn.wo.weight)
    if given.fault == "reduction":
        Attention.reduce = staticmethod(lambda summand: summand)
    tokens = MODELS["smollm2"].tokens([TEXTS[0]])["input_ids"]
    for side, model in models.items():
        if given.side in (side, "both"):
            watch(model, side, exclude=["**.self_attn.1", "turns.*", "turns"], weights=3)
            with torch.no_grad():
                model(tokens)
    if WORLD > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

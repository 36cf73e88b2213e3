"""A small decoder in plain torch, and the same one cut by hand over data, sequence and tensor parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from aclcmp import Partial, Replicate, Shard

LAYERS, HIDDEN, HEADS, GROUPS, HEAD_DIM, WIDE, EXPERTS, VOCABULARY = 2, 64, 8, 4, 8, 96, 8, 203
"""GROUPS key-value heads serve HEADS heads; VOCABULARY is no multiple of anything."""

Weights = dict[str, Tensor]
See = Callable[..., Tensor]
"""Called with a name, a tensor and its placements at each place that is labelled; what it returns goes on."""


def weights(experts: bool) -> Weights:
    """Return random weights of about unit gain, the same in every process."""
    generator = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    made = {"embed": torch.randn(VOCABULARY, HIDDEN, generator=generator), "head": matrix(VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        made |= {
            f"{at}.q": matrix(HEADS * HEAD_DIM, HIDDEN),
            f"{at}.k": matrix(GROUPS * HEAD_DIM, HIDDEN),
            f"{at}.v": matrix(GROUPS * HEAD_DIM, HIDDEN),
            f"{at}.out": matrix(HIDDEN, HEADS * HEAD_DIM),
        }
        if experts:
            made |= {
                f"{at}.router": matrix(EXPERTS, HIDDEN),
                f"{at}.up": matrix(EXPERTS, WIDE, HIDDEN),
                f"{at}.down": matrix(EXPERTS, HIDDEN, WIDE),
            }
        else:
            made |= {
                f"{at}.gate": matrix(WIDE, HIDDEN),
                f"{at}.up": matrix(WIDE, HIDDEN),
                f"{at}.down": matrix(HIDDEN, WIDE),
            }
    return made


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Compute grouped attention of (batch, tokens, heads * HEAD_DIM); `visible[i, j]`: token i sees token j."""
    q, k, v = (x.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * HEAD_DIM**-0.5
    mixed = scores.masked_fill(~visible, float("-inf")).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


def shares(x: Tensor, router: Tensor) -> Tensor:
    """Return the weight of each expert for every token; two experts have one."""
    scores = (x @ router.T).softmax(-1)
    return torch.where(scores >= scores.topk(2).values[..., -1:], scores, 0)


def experts_of(x: Tensor, share: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return the weighted sum of these experts' outputs."""
    wide = torch.einsum("bth,ewh->btew", x, up).relu()
    return torch.einsum("btew,ehw,bte->bth", wide, down, share)


def plain(given: Weights, ids: Tensor, see: See) -> None:
    """Run the whole decoder in one process; q, k and v are projections of their own, labelled side by side."""
    tokens = torch.arange(ids.shape[1])
    x = see("embed", F.embedding(ids, given["embed"]))
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        y = see(f"{at}.norm", norm(x))
        q, k, v = (y @ given[f"{at}.{name}"].T for name in "qkv")
        see(f"{at}.qkv", torch.cat((q, k, v), -1))
        see(f"{at}.keys", k)
        y = see(f"{at}.mixed", attend(q, k, v, tokens[:, None] >= tokens))
        y = see(f"{at}.out", see(f"{at}.out.summand", y @ given[f"{at}.out"].T))
        x = see(f"{at}.attn", x + y)
        y = norm(x)
        if f"{at}.router" in given:
            share = see(f"{at}.router", shares(y, given[f"{at}.router"]))
            y = experts_of(y, share, given[f"{at}.up"], given[f"{at}.down"])
            see(f"{at}.experts", y)
        else:
            gate, up = (y @ given[f"{at}.{name}"].T for name in ("gate", "up"))
            see(f"{at}.gate_up", torch.cat((gate, up), -1))
            y = see(f"{at}.act", F.silu(gate) * up) @ given[f"{at}.down"].T
            see(f"{at}.down.summand", y)
        x = see(at, x + y)
    see("logits", norm(x) @ given["head"].T)


@dataclass(frozen=True)
class Cut:
    """The decoder cut over a mesh of (data, context, tensor) parallel ranks.

    Projections are fused, the sequence lies in zigzag order over context ranks, the vocabulary is padded, and experts
    are spread over the tensor ranks. Where there are fewer key-value heads than tensor ranks, neighbours share one.
    """

    given: Weights
    mesh: DeviceMesh

    def share(self, x: Tensor, dim: int, name: str) -> Tensor:
        """Return this rank's slice over a dimension of the mesh."""
        return x.chunk(self.mesh[name].size(), dim)[self.mesh[name].get_local_rank()]

    def zigzag(self, x: Tensor) -> Tensor:
        """Return this rank's two chunks of the sequence, dimension 1."""
        context = self.mesh["context"]
        rank, size = context.get_local_rank(), context.size()
        chunks = x.chunk(2 * size, 1)
        return torch.cat((chunks[rank], chunks[2 * size - 1 - rank]), 1)

    def whole_sequence(self, x: Tensor) -> Tensor:
        """Return all ranks' tokens, those of rank 0 first."""
        size = self.mesh["context"].size()
        found = [torch.empty_like(x) for _ in range(size)]
        dist.all_gather(found, x.contiguous(), group=self.mesh["context"].get_group())
        return torch.cat(found, 1)

    def all_reduce(self, x: Tensor) -> Tensor:
        """Return the sum over tensor ranks."""
        x = x.clone()
        dist.all_reduce(x, group=self.mesh["tensor"].get_group())
        return x

    def forward(self, ids: Tensor, see: See) -> None:
        """Run this rank's part on the ids of the whole batch."""
        here: Sequence[Any] = (
            Shard(0, ranks=self.mesh["data"].get_group()),
            Shard(1, zigzag=True, ranks=self.mesh["context"].get_group()),
        )
        tensor = self.mesh["tensor"].get_group()
        alike, sliced, summand = Replicate(ranks=tensor), Shard(2, ranks=tensor), Partial(ranks=tensor)
        size, rank = self.mesh["tensor"].size(), self.mesh["tensor"].get_local_rank()
        shared = max(size // GROUPS, 1)
        wide = [HEADS * HEAD_DIM // size, *(2 * [GROUPS * HEAD_DIM * shared // size])]
        ranks, first = dist.get_process_group_ranks(tensor), rank // shared * shared
        of_groups = (Shard(2, ranks=ranks[rank % shared :: shared]), Replicate(ranks=ranks[first : first + shared]))
        ids = self.zigzag(self.share(ids, 0, "data"))
        tokens = self.zigzag(torch.arange(ids.shape[1] * self.mesh["context"].size())[None])[0]
        all_tokens = self.whole_sequence(tokens[None])[0]
        x = see("embed", F.embedding(ids, self.given["embed"]), *here, alike)
        for layer in range(LAYERS):
            at = f"layers.{layer}"
            y = see(f"{at}.norm", norm(x), *here, alike)
            k, v = (self.given[f"{at}.{name}"].chunk(size // shared)[rank // shared] for name in "kv")
            y = y @ torch.cat((self.share(self.given[f"{at}.q"], 0, "tensor"), k, v)).T
            if shared == 1:
                y = see(f"{at}.qkv", y, *here, Shard(2, parts=wide, ranks=tensor))
            q, k, v = y.split(wide, -1)
            k = see(f"{at}.keys", k, *here, *of_groups)
            k, v = self.whole_sequence(k), self.whole_sequence(v)
            y = see(f"{at}.mixed", attend(q, k, v, tokens[:, None] >= all_tokens), *here, sliced)
            y = y @ self.share(self.given[f"{at}.out"], 1, "tensor").T
            y = self.all_reduce(see(f"{at}.out.summand", y, *here, summand))
            y = see(f"{at}.out", y, *here, alike)
            x = see(f"{at}.attn", x + y, *here, alike)
            y = norm(x)
            if f"{at}.router" in self.given:
                share = see(f"{at}.router", shares(y, self.given[f"{at}.router"]), *here, alike)
                up, down = (self.share(self.given[f"{at}.{name}"], 0, "tensor") for name in ("up", "down"))
                y = see(f"{at}.experts", experts_of(y, self.share(share, 2, "tensor"), up, down), *here, summand)
            else:
                fused = torch.cat([self.share(self.given[f"{at}.{name}"], 0, "tensor") for name in ("gate", "up")])
                y = see(f"{at}.gate_up", y @ fused.T, *here, Shard(2, parts=(WIDE, WIDE), ranks=tensor))
                gate, up = y.chunk(2, -1)
                y = see(f"{at}.act", F.silu(gate) * up, *here, sliced)
                y = y @ self.share(self.given[f"{at}.down"], 1, "tensor").T
                y = see(f"{at}.down.summand", y, *here, summand)
            x = see(at, x + self.all_reduce(y), *here, alike)
        padded = F.pad(self.given["head"], (0, 0, 0, -VOCABULARY % size))
        y = norm(x) @ self.share(padded, 0, "tensor").T
        see("logits", y, *here, Shard(2, size=VOCABULARY, ranks=tensor))

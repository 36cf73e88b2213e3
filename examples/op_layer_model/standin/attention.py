"""The self-attention operation and its five kernels."""

import torch
from torch import Tensor

from .graph import Kernel, Scope, Tensors


def qk_matmul(query: Tensor, key: Tensor) -> Tensor:
    """Return the scaled scores (batch, heads, tokens, tokens); query heads share key heads in equal groups."""
    scaled = query * query.shape[-1] ** -0.5
    return scaled @ _for_each_head(key, query.shape[1]).transpose(-1, -2)


def causal_mask(scores: Tensor) -> Tensor:
    """Return the scores with those of later tokens at the lowest number."""
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, torch.finfo(scores.dtype).min)


def softmax(scores: Tensor) -> Tensor:
    """Return the weights, every row of which adds up to 1; computed in float32."""
    scores32 = scores.float()
    powers = (scores32 - scores32.amax(-1, keepdim=True)).exp()
    return (powers / powers.sum(-1, keepdim=True)).to(scores.dtype)


def pv_matmul(weights: Tensor, value: Tensor) -> Tensor:
    """Return the weighted values (batch, heads, tokens, head dim)."""
    return weights @ _for_each_head(value, weights.shape[1])


def merge_heads(values: Tensor) -> Tensor:
    """Return (batch, tokens, heads * head dim)."""
    return values.transpose(1, 2).flatten(2)


def _for_each_head(tensor: Tensor, heads: int) -> Tensor:
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


class SelfAttentionOperation:
    """Causal attention of this rank's heads: query, key, value (batch, heads, tokens, head dim) to its context."""

    name = "SelfAttentionOperation"

    def __init__(self) -> None:
        self.qk_matmul = Kernel("QkMatmulKernel", qk_matmul)
        self.mask = Kernel("MaskKernel", causal_mask)
        self.softmax = Kernel("SoftmaxKernel", softmax)
        self.pv_matmul = Kernel("PvMatmulKernel", pv_matmul)
        self.merge_heads = Kernel("MergeHeadsKernel", merge_heads)

    def compute(self, scope: Scope, query: Tensor, key: Tensor, value: Tensor) -> Tensors:
        """Return the context (batch, tokens, heads * head dim)."""
        (scores,) = scope.run(self.qk_matmul, query, key)
        (scores,) = scope.run(self.mask, scores)
        (weights,) = scope.run(self.softmax, scores)
        (values,) = scope.run(self.pv_matmul, weights, value)
        return scope.run(self.merge_heads, values)

"""A decoder layer and a stack of them, for one rank's slices of the weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .attention import SelfAttentionOperation
from .graph import Scope, Tensors
from .operations import (
    ACTIVATION,
    ADD,
    LINEAR,
    LINEAR_ALL_REDUCE,
    MATMUL,
    RESIDUAL,
    Chain,
    RopeOperation,
    rms_norm,
    split_heads,
)


@dataclass(frozen=True, slots=True)
class Heads:
    """How many heads this rank has, and how wide they are."""

    query: int
    key: int
    dim: int


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One rank's weights of a layer; matrices are (outputs, inputs).

    `qkv` holds the rows of this rank's query, key and value heads, `gate_up` its gate rows, then its up rows;
    `attention_out` and `down` hold its columns.
    """

    input_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    attention_out: Tensor
    post_norm: Tensor
    gate_up: Tensor
    down: Tensor


class ChatGlmLayerEncoder:
    """One layer: eleven operations."""

    name = "ChatGlmLayerEncoder"

    def __init__(self, weights: LayerWeights, heads: Heads, eps: float) -> None:
        self.weights = weights
        self.norm = Chain("RmsNormOperation", rms_norm(eps), extra=(1,))
        split = split_heads(heads.dim, heads.query, heads.key)
        self.qkv = Chain("FusedQkvLinearOperation", MATMUL, ADD, split, extra=(1, 1, 0))
        self.rope = RopeOperation()
        self.attention = SelfAttentionOperation()

    def compute(self, scope: Scope, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensors:
        """Return the hidden states (batch, tokens, hidden size) after the layer."""
        w = self.weights
        (normed,) = scope.run(self.norm, hidden, w.input_norm)
        query, key, value = scope.run(self.qkv, normed, w.qkv, w.qkv_bias)
        query, key = scope.run(self.rope, query, key, cos, sin)
        (context,) = scope.run(self.attention, query, key, value)
        (attended,) = scope.run(LINEAR_ALL_REDUCE, context, w.attention_out)
        (hidden,) = scope.run(RESIDUAL, hidden, attended)
        (normed,) = scope.run(self.norm, hidden, w.post_norm)
        (gate_up,) = scope.run(LINEAR, normed, w.gate_up)
        (activated,) = scope.run(ACTIVATION, gate_up)
        (output,) = scope.run(LINEAR_ALL_REDUCE, activated, w.down)
        return scope.run(RESIDUAL, hidden, output)


class ChatGlmModelEncoder:
    """The layers and the last norm: embeddings to the hidden states that the framework's `lm_head` reads."""

    name = "ChatGlmModelEncoder"

    def __init__(self, layers: Sequence[ChatGlmLayerEncoder], norm: Tensor, eps: float) -> None:
        self.layers = tuple(layers)
        self._weight = norm
        self._norm = Chain("RmsNormOperation", rms_norm(eps), extra=(1,))

    def compute(self, scope: Scope, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensors:
        """Return the hidden states (batch, tokens, hidden size) after the last norm."""
        for layer in self.layers:
            (hidden,) = scope.run(layer, hidden, cos, sin)
        return scope.run(self._norm, hidden, self._weight)

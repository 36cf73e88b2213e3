"""Formulas of known kinds of modules, for arrays of numpy and torch alike: a case's script gets one of them as it is.

Inputs are given by place, [tokens, features] each; parameters by name, as the checkpoint has them.
"""

from __future__ import annotations

import math
from typing import Any


def linear(x: Any, weight: Any, bias: Any = 0.0) -> Any:
    """A linear layer; weight is [out, in]."""
    return x @ weight.T + bias


def linear_of_product(one: Any, other: Any, weight: Any, bias: Any = 0.0) -> Any:
    """A linear layer, of the product of two inputs; weight is [out, in]."""
    return (one * other) @ weight.T + bias


def transposed_linear(x: Any, weight: Any, bias: Any = 0.0) -> Any:
    """A linear layer whose weight is [in, out]."""
    return x @ weight + bias


def embedding(weight: Any) -> Any:
    """An embedding; weight has the table's row of each token."""
    return weight


def rms_norm(*terms: Any, weight: Any, eps: Any) -> Any:
    """An RMS norm of the sum of its inputs."""
    x = sum(terms)
    return x / ((x * x).mean(-1, keepdims=True) + eps) ** 0.5 * weight


def rms_norm_around_one(*terms: Any, weight: Any, eps: Any) -> Any:
    """An RMS norm of the sum of its inputs, whose weight is the distance from 1."""
    x = sum(terms)
    return x / ((x * x).mean(-1, keepdims=True) + eps) ** 0.5 * (1.0 + weight)


def layer_norm(*terms: Any, weight: Any, eps: Any, bias: Any = 0.0) -> Any:
    """A layer norm of the sum of its inputs."""
    x = sum(terms)
    x = x - x.mean(-1, keepdims=True)
    return x / ((x * x).mean(-1, keepdims=True) + eps) ** 0.5 * weight + bias


def add(*terms: Any) -> Any:
    """The sum of its inputs."""
    return sum(terms)


def silu(x: Any) -> Any:
    """SiLU."""
    return x / (1.0 + math.e**-x)


def silu_and_multiply(gate: Any, up: Any) -> Any:
    """SiLU of the gate, times the other input."""
    return gate / (1.0 + math.e**-gate) * up


def gelu(x: Any) -> Any:
    """GELU by its tanh."""
    return x / (1.0 + math.e ** (-((8.0 / math.pi) ** 0.5) * (x + 0.044715 * x**3)))


def gelu_and_multiply(gate: Any, up: Any) -> Any:
    """GELU of the gate by its tanh, times the other input."""
    return gate / (1.0 + math.e ** (-((8.0 / math.pi) ** 0.5) * (gate + 0.044715 * gate**3))) * up


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return 2.0 / (1.0 + math.e ** (-2.0 * x)) - 1.0


def relu(x: Any) -> Any:
    """ReLU."""
    return (x + abs(x)) / 2.0


def attention(q: Any, k: Any, v: Any, request: Any, position: Any, frequency: Any, scale: Any) -> Any:
    """Causal attention with rotary embeddings; heads of 2 * len(frequency) features lie side by side."""
    size = 2 * len(frequency)
    turn = math.e ** (1j * position[:, None] * frequency)
    seen = (request[:, None] == request) * (position[:, None] >= position)
    output = q * 0.0
    for head in range(q.shape[1] // size):
        own = slice(head * size, (head + 1) * size)
        begin = head * k.shape[1] // q.shape[1] * size
        shared = slice(begin, begin + size)
        one, other = ((x[:, : size // 2] + 1j * x[:, size // 2 :]) * turn for x in (q[:, own], k[:, shared]))
        scores = (one @ other.conj().T).real * scale
        weights = math.e ** (scores - scores.mean(-1, keepdims=True)) * seen
        output[:, own] = weights @ v[:, shared] / weights.sum(-1, keepdims=True)
    return output

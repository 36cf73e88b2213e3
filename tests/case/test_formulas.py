"""Each formula gives what torch's own module gives, with arrays of numpy and of torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from aclcmp.orchestrator.case import formulas

N, WIDE, OUT = 5, 12, 7


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


X, Y, WEIGHT, BIAS, SCALE = draw(N, WIDE), draw(N, WIDE) * 2, draw(OUT, WIDE), draw(OUT), draw(WIDE)
EPS = torch.tensor(1e-5, dtype=torch.float64)
RMS = functional.rms_norm
CASES: list[tuple[Callable[..., Any], list[torch.Tensor], dict[str, torch.Tensor], torch.Tensor]] = [
    (formulas.linear, [X], {"weight": WEIGHT}, functional.linear(X, WEIGHT)),
    (formulas.linear, [X], {"weight": WEIGHT, "bias": BIAS}, functional.linear(X, WEIGHT, BIAS)),
    (formulas.transposed_linear, [X], {"weight": WEIGHT.T, "bias": BIAS}, functional.linear(X, WEIGHT, BIAS)),
    (formulas.linear_of_product, [X, Y], {"weight": WEIGHT}, functional.linear(X * Y, WEIGHT)),
    (formulas.embedding, [], {"weight": WEIGHT}, WEIGHT),
    (formulas.rms_norm, [X], {"weight": SCALE, "eps": EPS}, RMS(X, (WIDE,), SCALE, 1e-5)),
    (formulas.rms_norm, [X, Y], {"weight": SCALE, "eps": EPS}, RMS(X + Y, (WIDE,), SCALE, 1e-5)),
    (formulas.rms_norm_around_one, [X], {"weight": SCALE, "eps": EPS}, RMS(X, (WIDE,), SCALE + 1, 1e-5)),
    (formulas.layer_norm, [X], {"weight": SCALE, "eps": EPS}, functional.layer_norm(X, (WIDE,), SCALE)),
    (formulas.layer_norm, [X], {"weight": SCALE, "bias": SCALE, "eps": EPS},
     functional.layer_norm(X, (WIDE,), SCALE, SCALE)),
    (formulas.add, [X, Y], {}, X + Y),
    (formulas.silu, [X], {}, functional.silu(X)),
    (formulas.silu_and_multiply, [X, Y], {}, functional.silu(X) * Y),
    (formulas.gelu, [X], {}, functional.gelu(X, approximate="tanh")),
    (formulas.gelu_and_multiply, [X, Y], {}, functional.gelu(X, approximate="tanh") * Y),
    (formulas.tanh, [X], {}, nn.Tanh()(X)),
    (formulas.relu, [X], {}, nn.ReLU()(X)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("formula", "inputs", "parameters", "due"), CASES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_formula_is_torchs(
    formula: Callable[..., Any], inputs: list[torch.Tensor], parameters: dict[str, torch.Tensor], due: torch.Tensor
) -> None:
    found = formula(*inputs, **parameters)
    torch.testing.assert_close(found, due)
    arrays = formula(*(each.numpy() for each in inputs), **{name: each.numpy() for name, each in parameters.items()})
    np.testing.assert_allclose(arrays, due.numpy(), rtol=1e-12, atol=1e-12)


def test_attention_is_torchs_of_rotated_heads() -> None:
    """Two requests, four heads of queries, two of keys: those of other requests and later tokens are not seen."""
    size, lengths = 6, (4, 3)
    request = torch.tensor([0] * lengths[0] + [1] * lengths[1], dtype=torch.float64)
    position = torch.cat([torch.arange(n, dtype=torch.float64) for n in lengths])
    q, k, v = draw(7, 4 * size), draw(7, 2 * size), draw(7, 2 * size) * 2
    frequency = 100.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = (position[:, None] * frequency).repeat(1, 2)

    def heads(x: torch.Tensor, *, turned: bool = True) -> torch.Tensor:
        x = x.unflatten(-1, (-1, size)).transpose(0, 1)
        half = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1)
        return x * angle.cos() + half * angle.sin() if turned else x

    seen = (request[:, None] == request) & (position[:, None] >= position)
    due = functional.scaled_dot_product_attention(
        heads(q)[None], heads(k)[None], heads(v, turned=False)[None], seen, scale=0.3, enable_gqa=True
    )[0]
    tensors = q, k, v, request, position, frequency, torch.tensor(0.3, dtype=torch.float64)
    found = formulas.attention(*tensors)
    torch.testing.assert_close(found, due.transpose(0, 1).flatten(1))
    arrays = formulas.attention(*(each.numpy() for each in tensors))
    np.testing.assert_allclose(arrays, found.numpy(), rtol=1e-12, atol=1e-12)

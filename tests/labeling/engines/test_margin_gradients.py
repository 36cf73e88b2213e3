"""Gradients of margins through tiny models of transformers, against what small errors in the stream really do."""

from contextlib import ExitStack
from typing import Any

import pytest

from aclcmp.labeling.engines.margin_gradients import margin_gradients
from tests.engines.tiny_models import FAMILIES, TOKENS

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

STEP = 1e-4
TEXT = [3, 17, 5, 90, 41, 8]


def tiny(family: str) -> Any:
    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(family, **FAMILIES[family], **TOKENS)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().double()


def margin(model: Any, golden: int, actual: int, errors: dict[str, Any]) -> float:
    """Return the margin where the outputs of modules have errors."""
    with ExitStack() as hooks, torch.no_grad():
        for name, error in errors.items():

            def add(_module: Any, _args: Any, output: Any, error: Any = error) -> Any:
                if isinstance(output, tuple):
                    return (output[0] + error, *output[1:])
                return output + error

            hooks.callback(model.get_submodule(name).register_forward_hook(add).remove)
        logits = model(torch.tensor([TEXT]), use_cache=False).logits[0, -1]
    return float(logits[golden] - logits[actual])


_HALVES = [f"model.layers.{number}.{half}" for number in range(2) for half in ("self_attn", "mlp")]


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("qwen2", ["model.embed_tokens", *_HALVES, "model.norm", "lm_head"]),
        # norms behind its halves: a layer is no sum of these
        ("gemma3_text", ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "lm_head"]),
        # positions are added to its embedding
        ("gpt2", ["transformer.h.0", "transformer.h.1.attn", "transformer.h.1.mlp", "lm_head"]),
    ],
)
def test_an_error_at_any_point_moves_the_margin_by_its_product_with_the_gradient(family: str, names: list[str]) -> None:
    model = tiny(family)
    labels = {name for name, _ in model.named_modules()}
    found = margin_gradients(model, TEXT, 7, 50, labels)
    assert [each.name for each in found] == names
    clean = margin(model, 7, 50, {})
    for each in found:
        torch.manual_seed(1)
        error = torch.randn(1, *each.value.shape, dtype=torch.float64)
        where = each.labels[-1]  # an error of one of the summands is one of the sum
        moved = margin(model, 7, 50, {where: STEP * error}) - margin(model, 7, 50, {where: -STEP * error})
        assert moved / (2 * STEP) == pytest.approx(float((error[0] * each.value).sum()), rel=1e-2, abs=1e-3), each.name
    assert margin(model, 7, 50, {}) == clean, "no hook is left"
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_model_without_decoder_layers_has_no_gradients() -> None:
    class Plain(torch.nn.Module):
        def get_input_embeddings(self) -> None:
            return None

    assert margin_gradients(Plain(), TEXT, 1, 2, {"lm_head"}) == []


def test_only_points_that_labels_tell_are_there() -> None:
    labels = {"model.layers.0", "model.layers.1", "model.layers.1.self_attn"}
    found = margin_gradients(tiny("qwen2"), TEXT, 7, 50, labels)
    assert [(each.name, each.labels) for each in found] == [
        ("model.layers.0", ("model.layers.0",)),
        ("model.layers.1.self_attn", ("model.layers.0", "model.layers.1.self_attn")),
        ("model.layers.1.mlp", ("model.layers.1",)),
    ]

"""The framework's side: transformers' GLM as it is, and its labels."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, GlmConfig, GlmForCausalLM
from transformers.masking_utils import eager_mask
from transformers.models.glm.modeling_glm import repeat_kv

from aclcmp import set_label

QUERY_HEADS = 16
KEY_HEADS = 8
HEAD_DIM = 16
VOCABULARY = 512

AfterAttention = Callable[[int, Tensor, Tensor, Tensor], None]
"""Called with a layer's index and the query, key and value of all heads, after the golden attention."""


def random_golden(*, layers: int, hidden: int, seed: int, dtype: torch.dtype) -> GlmForCausalLM:
    """Return a small GLM whose random weights depend on the arguments alone, so that all ranks build the same."""
    config = GlmConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=QUERY_HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=4096,
        pad_token_id=None,
        eos_token_id=None,
    )
    model = GlmForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:  # scaled so that activations and scores stay of order one
                inputs = 1 if name.endswith("embed_tokens.weight") else weight.shape[1]
                depth = 2 * layers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                weight.normal_(0.0, (inputs * depth) ** -0.5, generator=generator)
            else:
                weight.add_(torch.empty_like(weight).normal_(0.0, 0.1, generator=generator))
            weight.data = weight.to(dtype)
    return model


def label_golden(model: GlmForCausalLM, names: Collection[str], after_attention: AfterAttention | None = None) -> None:
    """Label, in every layer, those of its tensors that are among `names`, under ids like `layers.2.attn.softmax`."""

    def label(layer: int, name: str, tensor: Tensor) -> None:
        if name in names:
            set_label("pta", f"layers.{layer}.{name}", tensor)

    def label_input(module: nn.Module, layer: int, name: str) -> None:
        module.register_forward_pre_hook(lambda _module, inputs: label(layer, name, inputs[0]))

    def label_output(module: nn.Module, layer: int, name: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            label(layer, name, output[0] if isinstance(output, tuple) else output)

        module.register_forward_hook(hook)

    for index, layer in enumerate(model.model.layers):
        label_input(layer, index, "in")
        label_output(layer.input_layernorm, index, "input_norm")
        label_output(layer.self_attn, index, "attn.out")
        label_input(layer.post_attention_layernorm, index, "attn.residual")
        label_output(layer.post_attention_layernorm, index, "post_norm")
        label_input(layer.mlp.down_proj, index, "mlp.act")
        label_output(layer.mlp, index, "mlp.out")
        label_output(layer, index, "out")

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        *,
        scaling: float,
        **_options: object,
    ) -> tuple[Tensor, Tensor]:
        """Compute transformers' eager attention, and label its intermediate results."""
        layer = module.layer_idx
        label(layer, "attn.q", query)
        label(layer, "attn.k", key)
        label(layer, "attn.v", value)
        scores = query @ repeat_kv(key, module.num_key_value_groups).transpose(2, 3) * scaling
        label(layer, "attn.scores", scores)
        weights = nn.functional.softmax(scores + attention_mask, dim=-1, dtype=torch.float32).to(query.dtype)
        label(layer, "attn.softmax", weights)
        values = weights @ repeat_kv(value, module.num_key_value_groups)
        label(layer, "attn.values", values)
        merged = values.transpose(1, 2).contiguous()
        label(layer, "attn.context", merged.flatten(2))
        if after_attention is not None:
            after_attention(layer, query, key, value)
        return merged, weights

    AttentionInterface.register("labelled", attention)
    AttentionMaskInterface.register("labelled", eager_mask)
    model.set_attn_implementation("labelled")

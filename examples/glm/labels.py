"""Labels of a GLM model: forward hooks, the same ones for the golden and for the actual side."""

from torch import Tensor, nn
from transformers import GlmForCausalLM

from aclcmp import set_label


def label_glm(model: GlmForCausalLM, side: str) -> None:
    """Label what the modules of `model` return, under ids that do not depend on how its weights are sharded.

    On a tensor-parallel rank the ids that end in `.local` hold the rank's equal slice of the last dimension, on the
    golden side the whole tensor; all others are whole on both. The order of the slices is the order of the ranks, so no
    layout needs to be given. (`gate_up_proj` is not labelled: its local output is a gate slice beside an up slice.)

    `side` is "golden" or "actual".
    """

    def label_output(module: nn.Module, data_id: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            set_label(side, data_id, output[0] if isinstance(output, tuple) else output)

        module.register_forward_hook(hook)

    def label_input(module: nn.Module, data_id: str) -> None:
        module.register_forward_pre_hook(lambda _module, inputs: set_label(side, data_id, inputs[0]))

    label_input(model.model.embed_tokens, "input_ids")
    label_output(model.model.embed_tokens, "embed")
    for index, layer in enumerate(model.model.layers):
        attn, mlp = layer.self_attn, layer.mlp
        label_output(layer.input_layernorm, f"layers.{index}.input_norm")
        label_output(attn.q_proj, f"layers.{index}.attn.q.local")
        label_output(attn.k_proj, f"layers.{index}.attn.k.local")
        label_output(attn.v_proj, f"layers.{index}.attn.v.local")
        label_input(attn.o_proj, f"layers.{index}.attn.context.local")
        label_output(attn, f"layers.{index}.attn.out")
        label_output(layer.post_attention_layernorm, f"layers.{index}.post_norm")
        label_input(mlp.down_proj, f"layers.{index}.mlp.act.local")
        label_output(mlp, f"layers.{index}.mlp.out")
        label_output(layer, f"layers.{index}.out")
    label_output(model.model.norm, "norm")
    label_output(model.lm_head, "lm_head")

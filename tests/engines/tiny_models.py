"""Tiny models of several families with random weights, as folders of transformers.

python tiny_models.py FOLDER FAMILY...
"""

import sys
from pathlib import Path

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True}
FAMILIES = {
    "qwen2": SHAPE,
    "qwen3": SHAPE,
    "gemma3_text": SHAPE | {"query_pre_attn_scalar": 32, "sliding_window": 16},
    "gpt2": {"vocab_size": 128, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "qwen3_moe": SHAPE | EXPERTS,
    "mixtral": SHAPE | {"num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Type of the model -> its configuration. vLLM on a CPU needs heads of at least 32."""
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def make(folder: Path, family: str) -> None:
    """Write a model whose weights are large enough that every part of it matters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family], **TOKENS))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5)
            if weight.ndim == 1 and name.endswith("weight") and family != "gemma3_text":
                weight.add_(1.0)  # the weight of a norm; Gemma adds 1 itself
    model.to(torch.float32).save_pretrained(folder / family)


if __name__ == "__main__":
    target, *names = sys.argv[1:]
    for each in names:
        make(Path(target), each)

"""The same GLM weights twice: a plain eager model, and one under transformers' own tensor parallelism."""

from copy import deepcopy
from pathlib import Path

import torch
from transformers import GlmConfig, GlmForCausalLM
from transformers.distributed import DistributedConfig, initialize_distributed_mesh

ATTENTION_HEADS = 16
KEY_VALUE_HEADS = 8
HEAD_DIM = 32
VOCABULARY = 1024
ROPE = {
    "rope_type": "default",
    "partial_rotary_factor": 0.5,
    # GLM's own 10,000 is meant for long texts: in these short ones most channels would hardly turn, and a wrong
    # position would disappear in bfloat16's round-off.
    "rope_theta": 100.0,
}

TP_PLAN = {
    # transformers' own plan for GLM gathers the MLP's activation on every rank and splits it again; this one leaves it
    # sharded between the two projections, as accelerated libraries do.
    "model.layers.*.mlp.gate_up_proj": "packed_colwise",
    "model.layers.*.mlp.down_proj": "rowwise",
}


def random_model(*, layers: int, hidden: int, seed: int, dtype: torch.dtype) -> GlmForCausalLM:
    """Return a small GLM whose random weights depend on the arguments alone, so that all ranks build the same.

    Matrices are scaled by 1/sqrt(inputs), those that write to the residual stream by another 1/sqrt(2 layers), GPT-2's
    way: activations and attention scores stay of order one at any depth.
    """
    config = GlmConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=ATTENTION_HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=HEAD_DIM,
        rope_parameters=ROPE,
        max_position_embeddings=4096,
        pad_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    model = GlmForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                inputs = 1 if name.endswith("embed_tokens.weight") else weight.shape[1]
                depth = 2 * layers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                weight.normal_(0.0, (inputs * depth) ** -0.5, generator=generator)
            else:  # norm weights around 1, biases around 0
                weight.add_(torch.empty_like(weight).normal_(0.0, 0.1, generator=generator))
            weight.data = weight.to(
                dtype
            )  # not model.to(dtype): RoPE's frequencies stay float32, as in from_pretrained
    return model


def checkpoint_model(path: Path, *, dtype: torch.dtype) -> GlmForCausalLM:
    """Return the GLM saved in the folder `path`, in `dtype`. Nothing is downloaded."""
    return GlmForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager", local_files_only=True)


def tensor_parallel(golden: GlmForCausalLM, *, ranks: int) -> GlmForCausalLM:
    """Return a copy of `golden` that holds this rank's slices of the weights and runs with fused attention.

    For more than one rank torch.distributed must be initialized, with as many ranks. Raises ValueError where the heads,
    the MLP or the vocabulary cannot be shared equally.
    """
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        size = getattr(golden.config, name)
        if size % ranks:
            raise ValueError(f"{name} of this model is {size}, which {ranks} ranks cannot share equally")
    actual = deepcopy(golden)
    actual.set_attn_implementation("sdpa")
    parallel = DistributedConfig(tp_size=ranks, tp_plan=TP_PLAN)
    _, mesh = initialize_distributed_mesh(parallel)
    return GlmForCausalLM.maybe_distribute_model(actual, parallel, mesh)

"""One rank of a transformers model, watched: alone, or as transformers' own plans cut it over ranks."""

import argparse
import os
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from msprobe_writer import dumping
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig, initialize_distributed_mesh
from transformers.distributed.pipeline_parallel import PipelineIdentityLayer, apply_pipeline_parallelism

from aclcmp import set_task_id, watch

SIZES = {
    "vocab_size": 208,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 8,
    "initializer_range": 0.15,  # about 1 / sqrt(hidden_size): activations stay of order one
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
    "pad_token_id": None,
    "eos_token_id": None,
}


def main() -> None:
    """Run this rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("--architecture", default="llama")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--pp", type=int, default=1)
    parser.add_argument("--dp", type=int, default=1)
    parser.add_argument("--ep", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="of one more token each, after the prompt")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--beside", action="store_true", help="the plain model too, on the golden side of each rank")
    parser.add_argument("--untold", action="store_true", help="watch takes no layout from the model's plan")
    parser.add_argument("--fault", type=int, nargs=2, metavar=("LAYER", "RANK"), help="permute a slice of q_proj")
    parser.add_argument("--silent", type=int, help="a pipeline stage that labels nothing")
    parser.add_argument(
        "--msprobe", type=Path, help="msprobe dumps the model into this folder, and nothing is labelled"
    )
    given = parser.parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    sizes = SIZES | {"num_hidden_layers": given.layers}
    torch.manual_seed(0)
    golden = AutoModelForCausalLM.from_config(AutoConfig.for_model(given.architecture, **sizes)).eval()
    model = deepcopy(golden).to(getattr(torch, given.dtype))
    if world > 1 and given.tp * given.pp * given.dp * given.ep > 1:
        config = DistributedConfig(tp_size=given.tp, pp_size=given.pp, fsdp_size=given.dp, ep_size=given.ep)
        _, mesh = initialize_distributed_mesh(config)
        model = type(model).maybe_distribute_model(model, replace(config, pp_size=1), mesh)
        if given.pp > 1:  # transformers 5.23 cuts layers out first, and then misses them when it cuts tensors
            apply_pipeline_parallelism(model, mesh.get_mesh("pp"))
    if given.fault is not None and given.fault[1] == rank:
        permute_slice(model, given.fault[0])
    stage = rank // (world // given.pp)
    if stage != given.silent and given.msprobe is None:
        watch(model, given.side, exclude=elsewhere(model), layouts=not given.untold)
    if given.beside:
        watch(golden, "golden")
    with torch.no_grad():
        for task in range(given.tasks):
            set_task_id()
            ids = torch.randint(208, (given.dp, given.tokens), generator=torch.Generator().manual_seed(task))
            own = ids[rank // (world // given.dp)][None] if world > 1 else ids
            with dumping(model, given.msprobe) if given.msprobe is not None else nullcontext():
                run(model, own, given.steps)
            if given.beside:
                run(golden, own, given.steps)
    if world > 1:
        dist.destroy_process_group()


def run(model: PreTrainedModel, ids: Tensor, steps: int) -> None:
    """Read a prompt, and then one token after the other."""
    cache = model(ids, use_cache=steps > 0).past_key_values
    for step in range(steps):
        cache = model(ids[:, step : step + 1], past_key_values=cache, use_cache=True).past_key_values


def permute_slice(model: PreTrainedModel, layer: int) -> None:
    """Permute the rows of this rank's slice of a projection: columns of what it returns."""
    weight = model.model.layers[layer].self_attn.q_proj.weight.detach()
    local = weight.to_local() if isinstance(weight, DTensor) else weight
    local.copy_(local.roll(1, dims=0))


def elsewhere(model: nn.Module) -> list[str]:
    """Return the names of the modules that another pipeline stage computes (identities here) or completes."""
    absent = [name for name, module in model.named_modules() if isinstance(module, PipelineIdentityLayer)]
    return [*absent, "model"] if "lm_head" in absent else absent


if __name__ == "__main__":
    main()

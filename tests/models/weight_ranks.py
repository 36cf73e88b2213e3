"""One rank that has golden's model and the actual one, which transformers' plan cuts over ranks; loader faults."""

import argparse
import copy
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from transformers.distributed import DistributedConfig, initialize_distributed_mesh

from aclcmp import watch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from trained import MODELS

PLANTED = "0.self_attn.o_proj", "1.self_attn.k_proj", "1.self_attn.v_proj", "2.mlp.up_proj", "2.mlp.down_proj"


def main() -> None:
    """Run this rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = int(os.environ["WORLD_SIZE"])
    golden = MODELS["smollm2"].model(torch.float32, "eager")
    golden.model.layers = golden.model.layers[:3]
    golden.config.num_hidden_layers = 3
    golden.lm_head.weight = nn.Parameter(golden.lm_head.weight.clone())
    actual = copy.deepcopy(golden).to(getattr(torch, given.dtype))
    if given.faults:
        plant(actual)
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=2))
        config = DistributedConfig(tp_size=world, tp_plan="auto")
        _, mesh = initialize_distributed_mesh(config)
        actual = type(actual).maybe_distribute_model(actual, config, mesh)
    exclude = ["**.self_attn.1"]
    watch(golden, "golden", exclude=exclude, weights=True)
    watch(actual, "actual", exclude=exclude, weights=True)
    with torch.no_grad():
        for model in (golden, actual):
            model(torch.arange(7, 23)[None], use_cache=False)
    if world > 1:
        dist.destroy_process_group()


def plant(model: nn.Module) -> None:
    """Plant faults of loaders: another layer's, exchanged, half of it missing, a scale along the wrong axis."""
    layers = model.model.layers
    with torch.no_grad():
        layers[0].self_attn.o_proj.weight.copy_(layers[2].self_attn.o_proj.weight)
        attention = layers[1].self_attn
        attention.k_proj.weight, attention.v_proj.weight = attention.v_proj.weight, attention.k_proj.weight
        layers[2].mlp.up_proj.weight[768:] = 0
        layers[2].mlp.down_proj.weight.mul_(torch.linspace(0.5, 1.5, 1536))


if __name__ == "__main__":
    main()

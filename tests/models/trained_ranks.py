"""One rank of a trained model, watched: alone, or as transformers' own plan cuts it over ranks."""

import argparse
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
from trained import MODELS, TEXTS, Trained


def main() -> None:
    """Run this rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="eager")
    parser.add_argument("--random", type=int, default=0, help="so many random ids instead of a text")
    parser.add_argument("--fault", choices=FAULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trained, world = MODELS[given.model], int(os.environ["WORLD_SIZE"])
    model = trained.model(getattr(torch, given.dtype), given.attention)
    if given.fault:
        FAULTS[given.fault](trained, model)
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=2))
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(
            head.weight.clone()
        )  # transformers cuts the two ends of a model apart, not tied ones
        config = DistributedConfig(tp_size=world, tp_plan="auto")
        _, mesh = initialize_distributed_mesh(config)
        model = type(model).maybe_distribute_model(model, config, mesh)
    watch(model, given.side, exclude=["**.self_attn.1", "**.attention.1", "**.self.1"])
    inputs = dict(trained.tokens([TEXTS[0], TEXTS[0][:90]] if given.model == "minilm" else [TEXTS[0]]))
    if given.random:
        ids = torch.randint(model.config.vocab_size, (1, given.random), generator=torch.Generator().manual_seed(0))
        inputs = {"input_ids": ids}
    with torch.no_grad():
        model(**inputs)
    if world > 1:
        dist.destroy_process_group()


def exchange(trained: Trained, model: nn.Module) -> None:
    """Exchange gate and up in one layer, as a faulty conversion script does."""
    gate, up = (model.get_submodule(role.format(13)) for role in (trained.roles.gate, trained.roles.up))
    gate.weight, up.weight = up.weight, gate.weight


def scale(trained: Trained, model: nn.Module) -> None:
    """Put a factor into one projection."""
    projection = model.get_submodule(trained.roles.down.format(trained.depths[1]))
    projection.register_forward_hook(lambda _module, _inputs, out: out * 1.2)


def clamp(trained: Trained, model: nn.Module) -> None:
    """Clamp the one massive activation, as a type of smaller range does."""

    def hook(_module: nn.Module, _inputs: object, out: torch.Tensor) -> torch.Tensor:
        return out.clamp(min=-float(out.abs().max()) / 4, max=float(out.abs().max()) / 4)

    model.get_submodule(trained.roles.layer.format(trained.depths[1])).register_forward_hook(hook)


FAULTS = {"exchange": exchange, "scale": scale, "clamp": clamp}


if __name__ == "__main__":
    main()

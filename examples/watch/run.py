"""Any transformers causal language model beside its own tensor-parallel self, watched module by module.

    aclcmp --exec "python examples/watch/run.py --architecture qwen2" --ranks 4

Every rank runs the plain model and its part of the tensor-parallel one (transformers' own plan, over gloo) on the same
tokens, on the CPU. No model is edited, and no label is set by hand.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # read when torch is imported
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig, initialize_distributed_mesh

from aclcmp import set_task_id, watch

TOKENS = 16
SIZES = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.09,  # about 1 / sqrt(hidden_size): activations stay of order one
    "tie_word_embeddings": False,
    "pad_token_id": None,
    "eos_token_id": None,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run this rank."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    arguments = parse_arguments(argv, ranks)
    torch.set_num_threads(1)  # the ranks share this machine's cores
    if ranks > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    try:
        with torch.no_grad():
            golden = plain_model(arguments)
            actual = tensor_parallel(golden, ranks)
            if arguments.fault and rank == arguments.rank:
                FAULTS[arguments.fault](actual, arguments.layer)
            watch(golden, "golden", inputs=arguments.inputs)
            watch(actual, "actual", inputs=arguments.inputs)
            for turn in range(arguments.turns):
                set_task_id()
                generator = torch.Generator().manual_seed(turn)
                ids = torch.randint(golden.config.vocab_size, (1, TOKENS), generator=generator)
                golden(ids, use_cache=False)
                actual(ids, use_cache=False)
    finally:
        if ranks > 1:
            dist.destroy_process_group()


def plain_model(arguments: argparse.Namespace) -> PreTrainedModel:
    """Return the model saved in a folder, or one with small random weights that are equal on all ranks."""
    if arguments.model is not None:
        dtype = getattr(torch, arguments.dtype) if arguments.dtype else "auto"
        return AutoModelForCausalLM.from_pretrained(arguments.model, local_files_only=True, dtype=dtype)
    torch.manual_seed(0)
    config = AutoConfig.for_model(arguments.architecture, num_hidden_layers=arguments.layers, **SIZES)
    model = AutoModelForCausalLM.from_config(config).eval()
    return model.to(getattr(torch, arguments.dtype)) if arguments.dtype else model


def tensor_parallel(golden: PreTrainedModel, ranks: int) -> PreTrainedModel:
    """Return a copy of `golden` that holds this rank's slices of the weights, as transformers' own plan cuts them."""
    actual = deepcopy(golden)
    head = actual.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.clone())  # transformers cuts the two ends of a model apart, not tied ones
    parallel = DistributedConfig(tp_size=ranks, tp_plan="auto")
    _, mesh = initialize_distributed_mesh(parallel)
    return type(golden).maybe_distribute_model(actual, parallel, mesh)


def permute_slice(model: PreTrainedModel, layer: int) -> None:
    """Permute the rows of one rank's slice of the queries' projection, as a faulty conversion script does."""
    weight = model.model.layers[layer].self_attn.q_proj.weight.detach()
    local = weight.to_local() if isinstance(weight, DTensor) else weight
    local.copy_(local.roll(1, dims=0))


def roll_tokens(model: PreTrainedModel, layer: int) -> None:
    """Write every token's row one place too far on one rank, as a faulty kernel does."""

    def roll(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output.roll(1, dims=1)

    model.model.layers[layer].mlp.register_forward_hook(roll)


FAULTS: dict[str, Callable[[PreTrainedModel, int], None]] = {
    "permuted-slice": permute_slice,
    "rolled-tokens": roll_tokens,
}


def parse_arguments(argv: Sequence[str] | None, ranks: int) -> argparse.Namespace:
    """Read the options; what `ranks` ranks cannot do ends the process with exit code 2."""
    parser = argparse.ArgumentParser(description="A transformers model beside its own tensor-parallel self.")
    parser.add_argument("--architecture", default="llama", help="model type of the random model: llama, qwen2, glm ...")
    parser.add_argument("--layers", type=int, default=4, help="of the random model")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint to load instead of random weights")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="in which both models compute")
    parser.add_argument("--inputs", action="store_true", help="label what modules are given too")
    parser.add_argument("--turns", type=int, default=2, help="prompts to read; each is a task")
    parser.add_argument("--fault", choices=FAULTS, help="fault to plant on one rank of the tensor-parallel model")
    parser.add_argument("--layer", type=int, default=2, help="layer that gets the fault")
    parser.add_argument("--rank", type=int, default=1, help="rank that gets the fault")
    arguments = parser.parse_args(argv)
    if arguments.model is not None and not (arguments.model / "config.json").is_file():
        parser.error(f"--model {arguments.model}: no config.json there")
    if arguments.fault and not 0 <= arguments.rank < ranks:
        parser.error(f"--rank {arguments.rank}: the ranks are 0 to {ranks - 1}")
    if arguments.fault and not 0 <= arguments.layer < arguments.layers and arguments.model is None:
        parser.error(f"--layer {arguments.layer}: the layers are 0 to {arguments.layers - 1}")
    return arguments


if __name__ == "__main__":
    main()

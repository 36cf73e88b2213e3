"""One rank of two: models beside their tensor-parallel selves, each watched on both sides under a prefix of its own."""

import warnings
from copy import deepcopy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.distributed import DistributedConfig, initialize_distributed_mesh

from aclcmp.labeling.watch import watch

warnings.simplefilter("error")
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "eos_token_id": None,
}
PACKED = {"model.layers.*.mlp.gate_up_proj": "packed_colwise", "model.layers.*.mlp.down_proj": "rowwise"}
ROUNDS = {
    "llama": ("llama", "auto", {}),
    "qwen2": ("qwen2", "auto", {}),  # biases
    "qwen3": ("qwen3", "auto", {}),  # norms within heads
    "glm": ("glm", "auto", {}),  # gathers the gate and splits it again
    "glm_packed": ("glm", PACKED, {}),
    "mixtral": ("mixtral", "auto", {"num_local_experts": 4}),
    "gathered": (
        "llama",
        {"model.layers.*.self_attn.q_proj": "colwise", "model.embed_tokens": "embedding_colwise"},
        {},
    ),
}


class Mlp(nn.Module):
    """Two projections under torch's own tensor parallelism."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


def compare(golden: nn.Module, actual: nn.Module, prefix: str, *given: torch.Tensor, **named: object) -> None:
    """Run both sides, watched."""
    with (
        watch(golden, "golden", inputs=True, prefix=prefix),
        watch(actual, "actual", inputs=True, prefix=prefix) as acl,
    ):
        golden(*given, **named)
        actual(*given, **named)
    if dist.get_rank() == 0:
        print(prefix, *acl.notes, sep="|", flush=True)


def main() -> None:
    """Run this rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ids = torch.arange(6)[None]
    for name, (architecture, plan, extra) in ROUNDS.items():
        torch.manual_seed(1)
        config = AutoConfig.for_model(architecture, **SIZES | extra)
        golden = AutoModelForCausalLM.from_config(config).eval()
        parallel = DistributedConfig(tp_size=2, tp_plan=plan)
        _, mesh = initialize_distributed_mesh(parallel)
        actual = type(golden).maybe_distribute_model(deepcopy(golden), parallel, mesh)
        with torch.no_grad():
            compare(golden, actual, name, ids, use_cache=True)
        if name in ("llama", "gathered"):  # with gradients the weights stay DTensors within forward
            compare(golden, actual, f"{name}_grad", ids, use_cache=False)
    mesh = init_device_mesh("cpu", (2,))
    for local in (True, False):
        torch.manual_seed(1)
        golden = Mlp()
        styles = {"up": ColwiseParallel(use_local_output=local), "down": RowwiseParallel(use_local_output=local)}
        compare(golden, parallelize_module(deepcopy(golden), mesh, styles), f"torch_{local}", torch.randn(3, 8))
    dist.destroy_process_group()


main()

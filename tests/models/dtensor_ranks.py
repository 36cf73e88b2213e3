"""One rank of a model under torch's own tensor and sequence parallelism, watched; or of the plain one."""

import argparse
import os
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from aclcmp import set_label, set_task_id, watch

LAYERS, HIDDEN, HEADS, WIDE, VOCABULARY = 2, 96, 12, 120, 208


class Attention(nn.Module):
    """Attention whose number of heads follows from its projections' width."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (-1, HIDDEN // HEADS)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        scores = (q @ k.transpose(-1, -2)) * (
            HIDDEN // HEADS
        ) ** -0.5  # torch's own attention takes no DTensor on the CPU
        return self.wo((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = (nn.Linear(HIDDEN, WIDE, bias=False) for _ in range(2))
        self.w2 = nn.Linear(WIDE, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """A layer of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)
        self.attention, self.feed_forward = Attention(), FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Model(nn.Module):
    """The model of torch's tutorial on tensor parallelism, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN)
        self.output = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok_embeddings(ids)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


def parallel(model: Model, mesh: DeviceMesh, local: bool) -> None:
    """Apply the plan of torch's tutorial: the sequence is cut between a layer's parts, heads and columns within."""
    whole, cut = Replicate(), Shard(1)
    parallelize_module(
        model,
        mesh,
        {
            "tok_embeddings": RowwiseParallel(input_layouts=whole, output_layouts=cut, use_local_output=local),
            "norm": SequenceParallel(use_local_output=local),
            "output": ColwiseParallel(input_layouts=cut, output_layouts=Shard(-1), use_local_output=local),
        },
    )
    for layer in model.layers:
        plan = {
            "attention_norm": SequenceParallel(use_local_output=local),
            "attention": PrepareModuleInput(input_layouts=(cut,), desired_input_layouts=(whole,)),
            "attention.wo": RowwiseParallel(output_layouts=cut, use_local_output=local),
            "ffn_norm": SequenceParallel(use_local_output=local),
            "feed_forward": PrepareModuleInput(input_layouts=(cut,), desired_input_layouts=(whole,)),
            "feed_forward.w2": RowwiseParallel(output_layouts=cut, use_local_output=local),
        }
        for name in ("attention.wq", "attention.wk", "attention.wv", "feed_forward.w1", "feed_forward.w3"):
            plan[name] = ColwiseParallel(use_local_output=local)
        parallelize_module(layer, mesh, plan)


def main() -> None:
    """Run this rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mesh", type=int, nargs=2, metavar=("data", "tensor"), help="else the plain model, golden")
    parser.add_argument("--local", action="store_true", help="modules return local tensors, not DTensors")
    parser.add_argument("--untold", action="store_true", help="watch takes no layout from the weights")
    parser.add_argument("--beside", action="store_true", help="the plain model too, on each rank's own data")
    parser.add_argument(
        "--both", action="store_true", help="label only the logits, cut over both dimensions of the mesh"
    )
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--fault", type=int, help="the rank whose slice of layer 1's w1 is permuted")
    parser.add_argument("--double", type=int, help="the rank whose summand in layer 1's w2 is doubled")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    torch.manual_seed(0)
    model, plain = Model().eval(), Model().eval()
    plain.load_state_dict(model.state_dict())
    ids = torch.randint(VOCABULARY, (2, given.tokens), generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        set_task_id()
        if given.mesh is not None:
            dist.init_process_group("gloo", timeout=timedelta(minutes=2))
            mesh = init_device_mesh("cpu", tuple(given.mesh), mesh_dim_names=("data", "tensor"))
            ids = ids.chunk(given.mesh[0])[rank // given.mesh[1]]
        if (given.mesh is None or given.beside) and not given.both:
            for layer in range(LAYERS):
                see_summand(plain, f"layers.{layer}.feed_forward.w2", "golden", False)
            watch(plain, "golden")
        if given.mesh is None or given.beside:
            logits = plain(ids)
        if given.mesh is None:
            set_label("golden", "both.logits", logits)
            return
        if not given.both:
            for layer in range(LAYERS):
                doubled = rank == given.double and layer == 1
                see_summand(model, f"layers.{layer}.feed_forward.w2", "actual", doubled)
        parallel(model, mesh["tensor"], given.local)
        if given.fault == rank:
            local = model.layers[1].feed_forward.w1.weight.to_local()
            local.copy_(local.roll(1, 0))
        if not given.both:
            watch(model, "actual", layouts=not given.untold)
        logits = model(ids)
        if not given.beside:
            own = logits.to_local() if isinstance(logits, DTensor) else logits
            whole = torch.empty((2, given.tokens, VOCABULARY), device="meta")
            cut = DTensor.from_local(own, mesh, (Shard(0), Shard(2)), shape=whole.shape, stride=whole.stride())
            set_label("actual", "both.logits", cut)
        dist.destroy_process_group()


def see_summand(model: Model, name: str, side: str, doubled: bool) -> None:
    """Label what a projection returns before it is reduced, by a hook that is registered before the plan's own."""

    def see(_module: nn.Module, _given: object, value: Tensor) -> Tensor:
        value = value * 2 if doubled else value
        set_label(side, f"{name}.summand", value)
        return value

    model.get_submodule(name).register_forward_hook(see)


if __name__ == "__main__":
    main()

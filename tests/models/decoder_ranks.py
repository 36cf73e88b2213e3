"""One rank of the decoder, in one process or cut over a mesh; labels say their layouts, or say nothing."""

import argparse
import os
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatch
from typing import Any

import torch
import torch.distributed as dist
from decoder import VOCABULARY, Cut, plain, weights
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from aclcmp import Replicate, set_label, set_task_id

MESH = ("data", "context", "tensor")


def neighbours(value: Tensor) -> Tensor:
    """Return the tensor of the neighbour: ranks 0 and 1 are neighbours, then 2 and 3, and so on."""
    found = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(found, value.contiguous())
    return found[dist.get_rank() ^ 1]


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "columns": lambda value: value.roll(1, -1),
    "double": lambda value: value * 2,
    "halves": lambda value: value.roll(value.shape[-1] // 2, -1),
    "chunks": lambda value: value.roll(value.shape[1] // 2, 1),
    "neighbours": neighbours,
}


def main() -> None:
    """Run this rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mesh", type=int, nargs=3, metavar=MESH, help="otherwise this is the golden process")
    parser.add_argument("--experts", action="store_true")
    parser.add_argument("--untold", default="", metavar="GLOBS", help="labels that tell no layout")
    parser.add_argument("--only", default="*", metavar="GLOBS", help="what is labelled")
    parser.add_argument("--fault", default="", metavar="GLOB", help="the label at whose place ranks err")
    parser.add_argument("--how", choices=FAULTS, default="columns")
    parser.add_argument("--rank", type=int, nargs="+", default=[], help="those that err")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--beside", action="store_true", help="golden beside it, of the same data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = weights(given.experts)
    rank = int(os.environ["RANK"])
    group = range(1)

    def matches(name: str, globs: str) -> bool:
        return any(fnmatch(name, glob) for glob in globs.split())

    def golden(name: str, value: Tensor) -> Tensor:
        if matches(name, given.only):
            layout = Replicate(ranks=group) if given.beside and not matches(name, given.untold) else None
            set_label("golden", name, value, layout=layout)
        return value

    def see(name: str, value: Tensor, *placements: Any) -> Tensor:
        if matches(name, given.fault):
            wrong = FAULTS[given.how](value)
            value = wrong if rank in given.rank else value
        if matches(name, given.only):
            layout = placements[1:] if given.beside else placements  # beside golden, the data is a group's own
            set_label("actual", name, value, layout=None if matches(name, given.untold) else layout)
        return value

    ids = torch.randint(VOCABULARY, (given.batch, given.tokens), generator=torch.Generator().manual_seed(1))
    set_task_id()
    if given.mesh is None:
        plain(model, ids, golden)
        return
    dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    mesh = init_device_mesh("cpu", tuple(given.mesh), mesh_dim_names=MESH)
    cut = Cut(model, mesh)
    if given.beside:
        own = given.mesh[1] * given.mesh[2]
        group = range(rank // own * own, (rank // own + 1) * own)
        plain(model, cut.share(ids, 0, "data"), golden)
    cut.forward(ids, see)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

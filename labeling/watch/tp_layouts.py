"""Layouts of the inputs and outputs of tensor-parallel modules, where their plan or their weights state them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aclcmp.labeling.layout import Replicate, Shard
from aclcmp.labeling.watch.module_names import ROOT, NamedModule

Layout = Shard | Replicate

# transformers 5.23, distributed/tensor_parallel.py; each was observed in a run over gloo
# (tests/labeling/watch/test_models.py) except sequence_parallel and the `_rep` names of earlier versions, which are
# taken from its source.
_OUTPUTS: Mapping[str, Layout] = {
    "colwise": Shard(-1),
    "colwise_gather_output": Replicate(),
    "colwise_rep": Replicate(),
    "rowwise": Replicate(),
    "rowwise_split_input": Replicate(),
    "rowwise_rep": Replicate(),
    "embedding_rowwise": Replicate(),
    "embedding_colwise": Replicate(),
    "all_reduce": Replicate(),
    "moe_tp_experts": Replicate(),
    "sequence_parallel": Shard(1),
}
_INPUTS: Mapping[str, Layout] = {
    "colwise": Replicate(),
    "colwise_gather_output": Replicate(),
    "colwise_rep": Replicate(),
    "rowwise": Shard(-1),
    "rowwise_split_input": Replicate(),
    "rowwise_rep": Replicate(),
    "embedding_rowwise": Replicate(),
    "embedding_colwise": Replicate(),
    "sequence_parallel": Shard(1),
}


@dataclass(frozen=True, slots=True)
class ModuleLayouts:
    """Layouts of one module that are known before it runs; None: unknown."""

    input: Layout | None = None
    output: Layout | None = None
    packed: bool = False
    """The output holds slices of several projections side by side, so it is no slice of the whole: not comparable."""
    rows: int | None = None
    """Rows of the local slice of a Linear's weight: an output this wide is the slice of the whole output."""
    ranks: Sequence[int] | None = None
    """The ranks that share the weight; None: all."""

    def output_layout(self, tensor: Any) -> Layout | None:
        """Return the layout of the module's only output."""
        if self.output is None and self.rows is not None and tensor.ndim and tensor.shape[-1] == self.rows:
            return Shard(-1, ranks=self.ranks)
        return self.output


def module_layouts(modules: list[NamedModule]) -> Iterator[ModuleLayouts]:
    """Yield the layouts of each module, from its model's transformers plan or else from its own DTensor weight."""
    # Only the model that was distributed has a size; its plan also holds the rules of its children.
    plans = [
        (named.name, named.inner._tp_plan, _ranks(getattr(named.inner, "_device_mesh", None)))
        for named in modules
        if isinstance(getattr(named.inner, "_tp_plan", None), dict) and _is_distributed(named.inner)
    ]
    for named in modules:
        planned, ranks = _planned_style(named.name, plans)
        style = getattr(named.inner, "_hf_tp_plan", None) or planned
        packed, rows = _weight_slice(named.inner)
        packed |= isinstance(style, str) and "packed" in style
        if isinstance(style, str):
            output = None if packed else _OUTPUTS.get(style)
            yield ModuleLayouts(_over(_INPUTS.get(style), ranks), _over(output, ranks), packed)
        else:
            mesh = getattr(getattr(named.inner, "weight", None), "device_mesh", None) if rows is not None else None
            yield ModuleLayouts(packed=packed, rows=None if packed else rows, ranks=_ranks(mesh))


def _is_distributed(model: Any) -> bool:
    size = getattr(model, "_tp_size", None)
    return isinstance(size, int) and size > 1


def _over(layout: Layout | None, ranks: Sequence[int] | None) -> Layout | None:
    return None if layout is None else replace(layout, ranks=ranks)


def _ranks(mesh: Any) -> list[int] | None:
    """Return the ranks of a mesh's tensor-parallel dimension around this rank; None for all ranks, or if unknown."""
    import torch.distributed as dist

    names = getattr(mesh, "mesh_dim_names", None) or ()
    if mesh is None or not dist.is_initialized() or (mesh.ndim > 1 and "tp" not in names):
        return None
    ranks: list[int] = (mesh["tp"] if mesh.ndim > 1 else mesh).mesh.flatten().tolist()
    return None if len(ranks) == dist.get_world_size() else ranks


def _planned_style(
    name: str, plans: list[tuple[str, dict[str, str], list[int] | None]]
) -> tuple[str | None, list[int] | None]:
    """Return the style that a plan gives a module, and the plan's ranks.

    A rule names a module in full, or with a star for each number.
    """
    for root, plan, ranks in plans:
        if root == ROOT or name.startswith(f"{root}."):
            own = name if root == ROOT else name[len(root) + 1 :]
            starred = ".".join("*" if part.isdecimal() else part for part in own.split("."))
            if style := plan.get(own) or plan.get(starred):
                return style, ranks
    return None, None


def _weight_slice(module: Any) -> tuple[bool, int | None]:
    """Return whether a Linear's weight holds several slices side by side, and the number of rows if it is one slice."""
    import torch

    if not isinstance(module, torch.nn.Linear):
        return False, None
    weight = module._parameters.get("weight")
    placements: tuple[Any, ...] = getattr(weight, "placements", ())
    if len(placements) != 1:
        return False, None
    placement = placements[0]
    if type(placement).__name__ == "_StridedShard":
        return True, None
    if type(placement).__name__ == "Shard" and placement.dim == 0:
        rows = int(weight.to_local().shape[0])
        return False, rows if rows < weight.shape[0] else None
    return False, None

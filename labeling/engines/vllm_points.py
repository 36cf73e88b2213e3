"""Points of a vLLM model: the modules that are labelled, and the names that the original gives what they return.

Fused projections are labelled in the parts that the original computes one by one, the pairs (hidden, residual) as the
sums that they stand for, and the inputs of row-parallel layers, where the original has them too. Layouts are those of
vLLM's own parallel layers (model_executor/layers of 0.32.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aclcmp.labeling.engines.families import FAMILIES, HEAD_NORMS, Family
from aclcmp.labeling.layout import Partial, Placement, Replicate, Shard

PARTS: Mapping[str, Sequence[str]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Fused module -> modules of the original, where the model's class tells no `packed_modules_mapping`."""


@dataclass(frozen=True, slots=True)
class Point:
    """One module and the labels of what it returns."""

    name: str
    module: Any
    layout: Placement | None = None
    parts: tuple[tuple[str, int, Placement | None], ...] = ()
    """Name, size along the last dimension, and layout of each part of a fused output."""
    residual: bool = False
    """It returns (hidden, residual), of which the original has the sum."""
    input_layout: Placement | None = None
    """Layout of its input, where that is labelled too."""
    heads: bool = False
    """Its output may have a dimension of heads, which the label has not."""
    scale: Any = None
    """The original's module multiplies its output by this tensor."""

    @property
    def key(self) -> str:
        """Key of its tap in compiled code."""
        return f"vllm {self.name}"

    @property
    def labels(self) -> list[str]:
        """Names of the labels of its output."""
        return [name for name, _, _ in self.parts] or [self.name]

    @property
    def site(self) -> str:
        """Call site of its labels."""
        return f"vllm:{type(self.module).__name__}"


def points_of(model: Any) -> Iterator[Point]:
    """Yield the points of a model on this rank, under the names of the original."""
    family = FAMILIES.get(type(model).__name__, Family())
    modules = dict(model.named_modules())
    for name, module in modules.items():
        parts = [family.names.get(part, part) for part in name.split(".")]
        parent = modules.get(name.rpartition(".")[0])
        if "" in parts or (point := _point(".".join(parts), module, parent, model)) is None:
            continue
        scale = family.scales.get(parts[-1])
        yield point if scale is None else replace(point, scale=getattr(parent, scale))


def _point(name: str, module: Any, parent: Any, model: Any) -> Point | None:
    """Return the point of a module, None for one that is not labelled."""
    from torch import nn
    from vllm.model_executor.layers.layernorm import GemmaRMSNorm, LayerNorm, RMSNorm
    from vllm.model_executor.layers.linear import (
        ColumnParallelLinear,
        MergedColumnParallelLinear,
        QKVParallelLinear,
        ReplicatedLinear,
        RowParallelLinear,
    )
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    from vllm.model_executor.models.utils import PPMissingLayer

    ranks = _tensor_parallel_ranks()
    packed = {**PARTS, **(getattr(model, "packed_modules_mapping", None) or {})}
    shard, replicate = Shard(-1, ranks=ranks), Replicate(ranks=ranks)
    if isinstance(module, QKVParallelLinear):
        return _fusion_point(name, module, packed, _qkv_parts(module, ranks), ranks)
    if isinstance(module, MergedColumnParallelLinear):
        sizes = [size // module.tp_size for size in module.output_sizes]
        return _fusion_point(name, module, packed, [(size, shard) for size in sizes], ranks)
    if isinstance(module, ColumnParallelLinear):
        return Point(name, module, replicate if module.gather_output else shard)
    if isinstance(module, RowParallelLinear):
        output = replicate if module.reduce_results or module.tp_size == 1 else Partial(ranks=ranks)
        return Point(name, module, output, input_layout=shard if module.input_is_parallel else replicate)
    if isinstance(module, ParallelLMHead | PPMissingLayer):
        return None  # neither runs: the logits processor uses the weight of the head, and a layer is on another rank
    if name.rpartition(".")[2] in HEAD_NORMS:
        return Point(name, module, _head_norm_layout(name, module, parent, ranks), heads=True)
    if isinstance(
        module,
        VocabParallelEmbedding
        | ReplicatedLinear
        | RMSNorm
        | GemmaRMSNorm
        | LayerNorm
        | nn.LayerNorm
        | nn.Embedding
        | nn.Linear,
    ):
        return Point(name, module, replicate)
    if _is_layer(name):
        return Point(name, module, replicate, residual=True)
    return Point(name, module, replicate) if _is_layer(name.rpartition(".")[0]) else None  # attention, mlp


def _head_norm_layout(name: str, module: Any, attention: Any, ranks: Sequence[int]) -> Placement | None:
    """Return the layout of a norm of each head, [rows, heads · size]; None where only the values can tell it."""
    kind = "num_heads" if name.endswith("q_norm") else "num_kv_heads"
    own, whole = getattr(attention, kind, 0), getattr(attention, f"total_{kind}", 0)
    of_heads = module.weight.numel() == getattr(attention, "head_dim", 0)
    return Shard(-1, ranks=ranks) if of_heads and own * len(ranks) == whole else None


def _qkv_parts(module: Any, ranks: Sequence[int]) -> list[tuple[int, Placement | None]]:
    """Return size and layout of the queries, keys and values of one rank.

    With more ranks than key-value heads several ranks hold the same head: how, the values tell.
    """
    shard = Shard(-1, ranks=ranks)
    of_heads = shard if module.num_kv_head_replicas == 1 else None
    sizes = (
        module.num_heads * module.head_size,
        module.num_kv_heads * module.head_size,
        module.num_kv_heads * module.v_head_size,
    )
    return list(zip(sizes, (shard, of_heads, of_heads), strict=True))


def _fusion_point(
    name: str,
    module: Any,
    packed: Mapping[str, Sequence[str]],
    parts: Sequence[tuple[int, Placement | None]],
    ranks: Sequence[int],
) -> Point:
    """Return the point of a fused projection: its parts under the original's names, or all under its own name."""
    parent, _, own = name.rpartition(".")
    names = packed.get(own, ())
    if len(names) != len(parts):
        sizes = tuple(size for size, _ in parts)
        even = all(layout is not None for _, layout in parts)
        return Point(name, module, Shard(-1, parts=sizes, ranks=ranks) if even else None)
    return Point(
        name,
        module,
        parts=tuple((f"{parent}.{each}", size, layout) for each, (size, layout) in zip(names, parts, strict=True)),
    )


def _is_layer(name: str) -> bool:
    """Tell whether a module is a whole decoder layer: `model.layers.3`."""
    before, _, number = name.rpartition(".")
    return number.isdecimal() and before.rpartition(".")[2] in ("layers", "h", "blocks")


def _tensor_parallel_ranks() -> list[int]:
    from vllm.distributed.parallel_state import get_tp_group

    return list(get_tp_group().ranks)

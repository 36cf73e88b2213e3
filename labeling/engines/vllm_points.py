"""Points of a vLLM model: the modules that are labelled, and the names that the original gives what they return.

Fused projections are labelled in the parts that the original computes one by one, the pairs (hidden, residual) as the
sums that they stand for, and the inputs of row-parallel layers, where the original has them too. Layouts are those of
vLLM's own parallel layers (model_executor/layers of 0.32.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aclcmp.labeling.engines.families import FAMILIES, HEAD_NORMS, Family
from aclcmp.labeling.engines.points import PARTS, Point, fusion_point, is_layer, qkv_parts, slice_of_heads
from aclcmp.labeling.layout import Partial, Placement, Replicate, Shard

_ENGINE = "vllm"


def points_of(model: Any) -> Iterator[Point]:
    """Yield the points of a model on this rank, under the names of the original."""
    family = FAMILIES.get(type(model).__name__, Family())
    modules, ranks = dict(model.named_modules()), tensor_parallel_ranks()
    packed = {**PARTS, **(getattr(model, "packed_modules_mapping", None) or {})}
    for name, module in modules.items():
        original, parent = original_name(name, family), modules.get(name.rpartition(".")[0])
        if not original or (point := _point(original, module, parent, packed, ranks)) is None:
            continue
        scale = family.scales.get(original.rpartition(".")[2])
        yield point if scale is None else replace(point, scale=getattr(parent, scale))


def original_name(name: str, family: Family) -> str:
    """Return the name that the original gives a module, "" where it has none."""
    parts = [family.names.get(part, part) for part in name.split(".")]
    return "" if "" in parts else ".".join(parts)


def _point(
    name: str, module: Any, parent: Any, packed: Mapping[str, Sequence[str]], ranks: Sequence[int]
) -> Point | None:
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

    shard, replicate = Shard(-1, ranks=ranks), Replicate(ranks=ranks)
    if isinstance(module, QKVParallelLinear):
        return fusion_point(_ENGINE, name, module, packed, _qkv_parts(module, ranks), ranks)
    if isinstance(module, MergedColumnParallelLinear):
        sizes = [size // module.tp_size for size in module.output_sizes]
        return fusion_point(_ENGINE, name, module, packed, [(size, shard) for size in sizes], ranks)
    if isinstance(module, ColumnParallelLinear):
        return Point(_ENGINE, name, module, replicate if module.gather_output else shard)
    if isinstance(module, RowParallelLinear):
        output = replicate if module.reduce_results or module.tp_size == 1 else Partial(ranks=ranks)
        return Point(_ENGINE, name, module, output, input_layout=shard if module.input_is_parallel else replicate)
    if isinstance(module, ParallelLMHead | PPMissingLayer):
        return None  # neither runs: the logits processor uses the weight of the head, and a layer is on another rank
    if name.rpartition(".")[2] in HEAD_NORMS:
        return Point(_ENGINE, name, module, _head_norm_layout(name, module, parent, ranks), heads=True)
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
        return Point(_ENGINE, name, module, replicate)
    if is_layer(name):
        return Point(_ENGINE, name, module, replicate, residual=True)
    return Point(_ENGINE, name, module, replicate) if is_layer(name.rpartition(".")[0]) else None  # attention, mlp


def _head_norm_layout(name: str, module: Any, attention: Any, ranks: Sequence[int]) -> Placement | None:
    """Return the layout of a norm of each head, [rows, heads · size]; None where only the values can tell it."""
    kind = "num_heads" if name.endswith("q_norm") else "num_kv_heads"
    own, whole = getattr(attention, kind, 0), getattr(attention, f"total_{kind}", 0)
    size = module.weight.numel()
    if size != getattr(attention, "head_dim", 0) or not whole or own * len(ranks) % whole:
        return None
    return slice_of_heads(own * size, ranks, own * len(ranks) // whole)


def _qkv_parts(module: Any, ranks: Sequence[int]) -> list[tuple[int, Shard]]:
    keys, values = module.num_kv_heads * module.head_size, module.num_kv_heads * module.v_head_size
    return qkv_parts((module.num_heads * module.head_size, keys, values), ranks, module.num_kv_head_replicas)


def tensor_parallel_ranks() -> list[int]:
    """Return the ranks that share the layers of this one."""
    from vllm.distributed.parallel_state import get_tp_group

    return list(get_tp_group().ranks)

"""Points of an SGLang model: the modules that are labelled, and the names that the original gives what they return.

Written against the source of SGLang 0.5.23 (sglang/srt/layers). Its parallel layers carry the names of vLLM's, but know
their group instead of its size, and its decoder layers leave sums over ranks and the residual to the next layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aclcmp.labeling.engines.families import HEAD_NORMS
from aclcmp.labeling.engines.points import PARTS, Point, fusion_point, is_layer, qkv_parts
from aclcmp.labeling.layout import Partial, Placement, Replicate, Shard

_ENGINE = "sglang"


def sglang_points(model: Any) -> Iterator[Point]:
    """Yield the points of a model on this rank."""
    from sglang.srt.layers import layernorm, linear
    from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    norms = tuple(
        getattr(layernorm, name)
        for name in ("RMSNorm", "LayerNorm", "GemmaRMSNorm", "Gemma3RMSNorm", "Gemma4RMSNorm")
        if hasattr(layernorm, name)
    )
    for name, module in model.named_modules():
        ranks = _ranks(module)
        shard, replicate = Shard(-1, ranks=ranks), Replicate(ranks=ranks)
        if isinstance(module, linear.QKVParallelLinear):
            sizes = [module.q_proj_shard_size, module.kv_proj_shard_size, module.v_proj_shard_size]
            yield fusion_point(
                _ENGINE, name, module, PARTS, qkv_parts(sizes, ranks, module.num_kv_head_replicas), ranks
            )
        elif isinstance(module, linear.MergedColumnParallelLinear):
            sizes = [size // _size(module) for size in module.output_sizes]
            yield fusion_point(_ENGINE, name, module, PARTS, [(size, shard) for size in sizes], ranks)
        elif isinstance(module, linear.ColumnParallelLinear):
            yield Point(_ENGINE, name, module, replicate if module.gather_output else shard)
        elif isinstance(module, linear.RowParallelLinear):
            yield Point(
                _ENGINE,
                name,
                module,
                _row_layout(module),
                input_layout=shard if module.input_is_parallel else replicate,
            )
        elif isinstance(module, ParallelLMHead) or name.rpartition(".")[2] in HEAD_NORMS:
            # The head never runs: the logits processor uses its weight. Norms of heads take all heads as rows,
            # [rows * heads, size], or a fused kernel runs in their place.
            continue
        elif isinstance(module, (VocabParallelEmbedding, linear.ReplicatedLinear, *norms)):
            yield Point(_ENGINE, name, module, Replicate())
        elif is_layer(name):
            yield Point(_ENGINE, name, module, Replicate(), residual=True)
        elif is_layer(name.rpartition(".")[0]) and name.endswith((".self_attn", ".mlp")):
            last = [each for each in module.children() if isinstance(each, linear.RowParallelLinear)]
            yield Point(_ENGINE, name, module, _row_layout(last[-1]) if last else None)


def _row_layout(module: Any) -> Placement:
    """Return the layout of a row-parallel layer's output: a summand where the next layer sums over ranks."""
    ranks = _ranks(module)
    return Replicate(ranks=ranks) if module.reduce_results or _size(module) == 1 else Partial(ranks=ranks)


def _size(module: Any) -> int:
    """Return the number of ranks that share a layer; its group is None where it is not split."""
    return 1 if module.tp_group is None else int(module.tp_group.world_size)


def _ranks(module: Any) -> list[int] | None:
    """Return the ranks that share a layer; None, for all that have the label, where it does not tell."""
    ranks = getattr(getattr(module, "tp_group", None), "ranks", None)
    return None if ranks is None else list(ranks)

"""Points of an SGLang model: the modules that are labelled, and the names that the original gives what they return.

Written against the source of SGLang 0.5.23 (sglang/srt/layers). Its parallel layers carry the names of vLLM's, but know
their group instead of its size, and its decoder layers leave sums over ranks and the residual to the next layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aclcmp.labeling.engines.vllm_points import PARTS, Point
from aclcmp.labeling.layout import Partial, Placement, Replicate, Shard

_HEAD_NORMS = ("q_norm", "k_norm")
"""They take all heads as rows, [rows * heads, size], or a fused kernel runs in their place."""


@dataclass(frozen=True, slots=True)
class SglangPoint(Point):
    """One module of an SGLang model and the labels of what it returns."""

    is_layer: bool = False
    """A whole decoder layer."""

    @property
    def key(self) -> str:
        """Key of its tap in compiled code."""
        return f"sglang {self.name}"

    @property
    def site(self) -> str:
        """Call site of its labels."""
        return f"sglang:{type(self.module).__name__}"


def sglang_points(model: Any) -> Iterator[SglangPoint]:
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
            yield _fusion_point(name, module, _qkv_parts(module, shard), ranks)
        elif isinstance(module, linear.MergedColumnParallelLinear):
            sizes = [size // _size(module) for size in module.output_sizes]
            yield _fusion_point(name, module, [(size, shard) for size in sizes], ranks)
        elif isinstance(module, linear.ColumnParallelLinear):
            yield SglangPoint(name, module, replicate if module.gather_output else shard)
        elif isinstance(module, linear.RowParallelLinear):
            yield SglangPoint(
                name, module, _row_layout(module), input_layout=shard if module.input_is_parallel else replicate
            )
        elif isinstance(module, ParallelLMHead) or name.rpartition(".")[2] in _HEAD_NORMS:
            continue  # the head never runs: the logits processor uses its weight
        elif isinstance(module, (VocabParallelEmbedding, linear.ReplicatedLinear, *norms)):
            yield SglangPoint(name, module, Replicate())
        elif _is_layer(name):
            yield SglangPoint(name, module, Replicate(), residual=True, is_layer=True)
        elif _is_layer(name.rpartition(".")[0]) and name.endswith((".self_attn", ".mlp")):
            last = [each for each in module.children() if isinstance(each, linear.RowParallelLinear)]
            yield SglangPoint(name, module, _row_layout(last[-1]) if last else None)


def _qkv_parts(module: Any, shard: Placement) -> list[tuple[int, Placement | None]]:
    """Return size and layout of the queries, keys and values of one rank.

    With more ranks than key-value heads several ranks hold the same head: how, the values tell.
    """
    of_heads = shard if module.num_kv_head_replicas == 1 else None
    sizes = module.q_proj_shard_size, module.kv_proj_shard_size, module.v_proj_shard_size
    return list(zip(sizes, (shard, of_heads, of_heads), strict=True))


def _fusion_point(
    name: str, module: Any, parts: Sequence[tuple[int, Placement | None]], ranks: Sequence[int] | None
) -> SglangPoint:
    """Return the point of a fused projection: its parts under the original's names, or all under its own name."""
    parent, _, own = name.rpartition(".")
    names = PARTS.get(own, ())
    if len(names) != len(parts):
        return SglangPoint(name, module, Shard(-1, parts=tuple(size for size, _ in parts), ranks=ranks))
    return SglangPoint(
        name,
        module,
        parts=tuple((f"{parent}.{each}", size, layout) for each, (size, layout) in zip(names, parts, strict=True)),
    )


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


def _is_layer(name: str) -> bool:
    """Tell whether a module is a whole decoder layer: `model.layers.3`."""
    before, _, number = name.rpartition(".")
    return number.isdecimal() and before.rpartition(".")[2] in ("layers", "h", "blocks")

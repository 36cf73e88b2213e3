"""Points of vLLM's KV cache: the caches of the attention layers, and the tables through which attention reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from aclcmp.labeling.engines.families import FAMILIES, Family
from aclcmp.labeling.engines.kv_cache import CachePoint, KvCache
from aclcmp.labeling.engines.module_labels import label_selection, say
from aclcmp.labeling.engines.points import slice_of_heads
from aclcmp.labeling.engines.vllm_points import original_name, tensor_parallel_ranks
from aclcmp.labeling.golden_values.substitution import substitution
from aclcmp.labeling.identity import KV_CACHE
from aclcmp.labeling.layout import layout_of


def kv_cache_of(runner: Any, model: Any) -> KvCache | None:
    """Return the caches of a model that are to be labelled; None without `--kv-cache`, or where none is known."""
    if os.environ.get(KV_CACHE) != "1" or substitution() is not None:
        return None
    parallel = getattr(getattr(runner, "vllm_config", None), "parallel_config", None)
    if getattr(parallel, "decode_context_parallel_size", 1) > 1:
        say("the KV cache is split over ranks by positions (decode context parallel): it is not labelled")
        return None
    selects = label_selection()
    try:
        points = [point for point in _points(runner, model) if any(map(selects, point.labels))]
    except Exception as error:  # a label must not keep the engine from serving
        say(f"the KV cache is not labelled: {type(error).__name__}: {error}")
        return None
    return KvCache(points) if points else None


def _points(runner: Any, model: Any) -> Iterator[CachePoint]:
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    family, ranks = FAMILIES.get(type(model).__name__, Family()), tensor_parallel_ranks()
    whole = runner.model_config.get_total_num_kv_heads()
    unknown = set()
    for path, layer in model.named_modules():
        if not isinstance(layer, AttentionLayerBase):
            continue
        name = original_name(path.rpartition(".")[0], family)
        if not isinstance(layer, Attention) or getattr(layer, "attn_type", "decoder") != "decoder" or not name:
            unknown.add(type(layer).__name__)
        elif layer.kv_sharing_target_layer_name is None:  # else it reads the cache of another layer
            copies = layer.num_kv_heads * len(ranks) // whole if whole else 0
            keys, values = (
                layout_of(slice_of_heads(layer.num_kv_heads * size, ranks, copies)) if copies else None
                for size in (layer.head_size, layer.head_size_v)
            )
            yield CachePoint(name, layer, f"vllm:{type(layer).__name__}", keys, values)
    if unknown:
        say(f"what {', '.join(sorted(unknown))} keep of tokens is no cache of keys and values: it is not labelled")


def block_table_of(layer: str) -> Any:
    """Return the blocks of each request, [requests, most blocks], as an attention layer reads them in this forward.

    Raises AttributeError for a backend that has no such table.
    """
    from vllm.forward_context import get_forward_context

    return get_forward_context().attn_metadata[layer].block_table

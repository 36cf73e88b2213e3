"""Layouts of fused projections and of heads, with fewer heads of keys and values than ranks, or not."""

from types import SimpleNamespace

import pytest

from aclcmp.labeling.engines.points import fusion_point, qkv_parts
from aclcmp.labeling.engines.vllm_points import _head_norm_layout
from aclcmp.labeling.layout import Shard, layout_of

RANKS = [0, 1, 2, 3]
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_parts_of_a_fused_projection(copies: int) -> None:
    parts = qkv_parts((128, 32, 32), RANKS, copies)
    of_heads = Shard(-1, ranks=RANKS) if copies == 1 else Shard(-1, parts=((32, copies),), ranks=RANKS)
    point = fusion_point("e", "l.attn.qkv_proj", None, PACKED, parts, RANKS)
    assert [(name, layout) for name, _, layout in point.parts] == [
        ("l.attn.q_proj", Shard(-1, ranks=RANKS)),
        ("l.attn.k_proj", of_heads),
        ("l.attn.v_proj", of_heads),
    ]
    whole = fusion_point("e", "l.attn.c_attn", None, PACKED, parts, RANKS).layout
    keys = 32 if copies == 1 else (32, copies)
    assert whole == Shard(-1, parts=(128, keys, keys), ranks=RANKS) and layout_of(whole)


@pytest.mark.parametrize(
    ("own", "whole", "copies"), [(2, 8, 1), (1, 4, 1), (1, 2, 2), (1, 1, 4), (1, 3, None), (2, 0, None)]
)
def test_norms_of_heads(own: int, whole: int, copies: int | None) -> None:
    attention = SimpleNamespace(num_kv_heads=own, total_num_kv_heads=whole, head_dim=16)
    norm = SimpleNamespace(weight=SimpleNamespace(numel=lambda: 16))
    layout = _head_norm_layout("l.k_norm", norm, attention, RANKS)
    plain, shared = Shard(-1, ranks=RANKS), Shard(-1, parts=((16 * own, copies or 0),), ranks=RANKS)
    assert layout == (None if copies is None else plain if copies == 1 else shared)

"""The order in which a dump's tensors were computed, by the times or the names of files that do not keep it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from aclcmp.orchestrator.dumps.dump_paths import natural

_DISTINCT = 0.9
"""Files were written one after another where this share of them has a time of its own."""
_BEHIND = (1 << 30, ())
"""Sorts a container behind its parts: a module returns after all modules inside it."""
# Parts of names as models have them (transformers, ggml, Megatron), in the order of computation. Unknown parts come in
# the middle, in natural order.
_PARTS = (
    r"embed.*|wte|.*embeddings?|inp_embd",
    r"wpe|rotary.*|pos(?:itions?|_.*|ition_.*)?",
    r"(?:pre_)?(?:in(?:put)?_?|attn_|attention_|pre_?attn_|ln_?|norm)(?:layer_?norm|norm|ln|1)|ln_?1|norm_?1|ln_attn",
    r"self_attn|self_attention|attention|attn|self|mixer",
    r"qkv.*|wqkv|query_key_value|c_attn|in_proj|q_proj|query|wq|q|qcur",
    r"k_proj|key|wk|k|kcur",
    r"v_proj|value|wv|v|vcur",
    r"q_norm|q_layernorm",
    r"k_norm|k_layernorm",
    r"rope.*|q_rot.*|k_rot.*",
    r"kq|scores?|kq_soft_max.*|softmax|probs|attn_weights",
    r"core_attention|context|ctx|kqv.*",
    r"o_proj|out_proj|wo|o|attn_out|attn_output",
    r"(?:post_attention|post_attn|ffn|mlp|attn_post)_?(?:layer_?norm|norm|ln)|ln_?2|norm_?2|ln_mlp|post_attention_.*",
    r"pre_(?:feedforward|ffn|mlp)_.*",
    r"",  # unknown parts
    r"mlp|ffn|feed_?forward|moe|block_sparse_moe|intermediate|experts?",
    r"router|gate|gate_proj|w1|c_fc|fc_?in|fc1|dense_h_to_4h|gate_up.*|ffn_gate",
    r"up_proj|w3|ffn_up",
    r"act.*|gelu|silu|swiglu|.*act_fn",
    r"down_proj|w2|c_proj|fc_?out|fc2|dense_4h_to_h|dense|ffn_down",
    r"post_(?:feedforward|ffn|mlp)_.*",
    r"out(?:puts?)?|residual|hidden_states?|l_out|ffn_out",
    r"norm|ln_?f|final_?(?:layer_?)?norm|result_norm",
    r"pooler",
    r"lm_head|head|logits|result_output|score|classifier",
    r"log_?probs|argmax|next.*|sampled|ids",
)


class OrderBasis(str, Enum):
    """The evidence that the order of labels rests on, the best first."""

    CALLS = "calls"
    """The order in which they were recorded."""
    TIMES = "times"
    """The times at which their files were written."""
    NAMES = "names"
    """Their names."""


_KNOWN = [(number, re.compile(part, re.IGNORECASE)) for number, part in enumerate(_PARTS) if part]
_UNKNOWN = _PARTS.index("")


def call_key(name: str) -> tuple[tuple[int, object], ...]:
    """Return a sort key in a model's order of computation: part by part, layers by number, containers last."""
    if layered := re.fullmatch(r"([A-Za-z_][\w.]*?)-(\d{1,5})((?: \([^()]*\))*)", name):  # ggml: attn_norm-12
        name = f"layers.{layered[2]}.{layered[1]}{layered[3]}" if layered[1] != "l_out" else f"layers.{layered[2]}"
    parts = [part for part in re.split(r"[./]", name) if part]
    return (*((_position(part), natural(part)) for part in parts), _BEHIND)


def _position(part: str) -> int:
    return next((number for number, known in _KNOWN if known.fullmatch(part)), _UNKNOWN)


def find_order(names: Sequence[str], times: Sequence[float]) -> tuple[OrderBasis, list[int]]:
    """Return what the order of tensors rests on, and their indices in that order.

    `times` are those of their files. Times count where most of them differ, unless their order is the alphabet's, as
    when files were copied. Names count otherwise.
    """
    by_name = sorted(range(len(names)), key=lambda index: call_key(names[index]))
    by_time = sorted(range(len(names)), key=lambda index: (times[index], index))
    alphabet = sorted(range(len(names)), key=lambda index: names[index])
    if len(set(times)) >= _DISTINCT * len(times) and len(times) > 1 and by_time != alphabet:
        return OrderBasis.TIMES, by_time
    return OrderBasis.NAMES, by_name

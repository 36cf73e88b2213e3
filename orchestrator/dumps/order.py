"""In which order a dump's tensors were computed, where its files do not keep it: by their times, or by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from aclcmp.orchestrator.dumps.files import natural


class Order(str, Enum):
    """What the order of labels rests on, the best first."""

    CALLS = "calls"
    """The order in which they were recorded."""
    TIMES = "times"
    """The times at which their files were written."""
    NAMES = "names"
    """Their names."""


_DISTINCT = 0.9
"""Files of which so many have a time of their own were written one after another."""

_BEHIND = (1 << 30, ())
"""A container comes behind its parts: what a module returns is there when all inside it is."""

# Parts of names as models have them (transformers, ggml, Megatron), in the order of computation; what is none of them
# stands in the middle, by its natural order.
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
    r"",  # what is not known
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
_KNOWN = [(number, re.compile(part, re.IGNORECASE)) for number, part in enumerate(_PARTS) if part]
_UNKNOWN = _PARTS.index("")


def call_key(name: str) -> tuple[tuple[int, object], ...]:
    """Return a key that sorts names as a model computes: by parts, layers by number, containers behind their parts."""
    if layered := re.fullmatch(r"([A-Za-z_][\w.]*?)-(\d{1,5})((?: \([^()]*\))*)", name):  # ggml: attn_norm-12
        name = f"layers.{layered[2]}.{layered[1]}{layered[3]}" if layered[1] != "l_out" else f"layers.{layered[2]}"
    parts = [part for part in re.split(r"[./]", name) if part]
    return (*((_rank(part), natural(part)) for part in parts), _BEHIND)


def _rank(part: str) -> int:
    return next((number for number, known in _KNOWN if known.fullmatch(part)), _UNKNOWN)


def order_of(names: Sequence[str], times: Sequence[float]) -> tuple[Order, list[int]]:
    """Return what tells the order of tensors, one to a file, and their places in it.

    Times do where most files have one of their own, unless they follow the alphabet, as copies of files do.
    """
    by_name = sorted(range(len(names)), key=lambda place: call_key(names[place]))
    by_time = sorted(range(len(names)), key=lambda place: (times[place], place))
    alphabet = sorted(range(len(names)), key=lambda place: names[place])
    if len(set(times)) >= _DISTINCT * len(times) and len(times) > 1 and by_time != alphabet:
        return Order.TIMES, by_time
    return Order.NAMES, by_name

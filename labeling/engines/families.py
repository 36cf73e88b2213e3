"""Modules of a family that have another name or another meaning in vLLM than in transformers, as data.

Both mostly use the same names. Read in vLLM 0.32.0 and transformers 5.19.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Family:
    """Differences between the two models of one family."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Part of a module's name in vLLM -> that part in transformers, "" where that has none: it is left out."""
    heads_first: tuple[str, ...] = ()
    """Of HEAD_NORMS: transformers returns [1, heads, tokens, size] there, instead of [1, tokens, heads, size]."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """Last part of a module's name -> attribute of its parent, by which transformers multiplies inside the module."""


_SCALED_EMBEDDING = Family(scales={"embed_tokens": "normalizer"})
"""vLLM multiplies behind `embed_tokens`, transformers inside (Gemma3TextScaledWordEmbedding)."""

FAMILIES: Mapping[str, Family] = {
    "GemmaForCausalLM": _SCALED_EMBEDDING,
    "Gemma2ForCausalLM": _SCALED_EMBEDDING,
    # transformers norms queries and keys behind their transposition
    "Gemma3ForCausalLM": replace(_SCALED_EMBEDDING, heads_first=("q_norm", "k_norm")),
    "MixtralForCausalLM": Family(names={"block_sparse_moe": "mlp"}),  # as in its checkpoints; transformers renamed it
}
"""Class of the model, of the same name in vLLM and transformers -> what differs."""

TUPLES: Mapping[str, int] = {"self_attn": 1, "attn": 1, "gate": 2}
"""Last part of a module's name -> tensors that transformers returns behind the first, and vLLM does not: attention
weights; scores and numbers of the chosen experts behind the router's logits."""

HEAD_NORMS = ("q_norm", "k_norm")
"""Last parts of the names of norms that may be those of each head. Their labels are [rows, heads · size] on both sides:
of a rank that holds one head, a dimension of heads is one, and lost."""

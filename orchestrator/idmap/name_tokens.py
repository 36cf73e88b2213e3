"""Split label ids into numbers (of layers and experts) and words; words of the same meaning become one."""

from __future__ import annotations

import re

_NUMBER = re.compile(
    r"(?<=[./\[])(?P<part>\d{1,9})(?=[./\]]|$)"  # layers.3.mlp, layers/3/mlp, layers[3]
    r"|(?<=layer)_?(?P<layer>\d{1,9})(?!\d)|(?<=block)_?(?P<block>\d{1,9})(?!\d)"
    r"|^data_[\d-]+_(?P<call>\d{1,9})$"  # made by gen_id: a run's stamp and a count
    r"|(?:^|(?<=[./]))(?P<dumped>\d{1,9})(?=_\w*layer)",  # 12_ChatGlm6BLayerEncoderOperation
    re.IGNORECASE,
)
_BEFORE_EXPERT = re.compile(r"experts?[./\[]$", re.IGNORECASE)

_BEFORE_CALL = re.compile(r"(?:forward|backward|inputs?|outputs?|args|parameters)[./\[]$", re.IGNORECASE)
"""Parts before the numbers that msprobe and hooks give to calls and tensors, whatever the model."""

_SYNONYMS = [
    (re.compile(pattern), word)
    for pattern, word in (
        (r"^data_[\d-]+_ $", " generated "),
        (r"query_?key_?value|qkv|w_?pack|c_attn", " qkv "),
        (r"gate_up(?:_proj)?|gate_and_up(?:_proj)?", " fused gate up proj "),
        (r"dense_h_to_4h|fc_?1|c_fc|linear_fc1", " up proj "),
        (r"dense_4h_to_h|down_proj|fc_?2|linear_fc2|\bw2\b", " down proj "),
        (r"gate_proj|\bw1\b", " gate proj "),
        (r"up_proj|\bw3\b", " up proj "),
        (r"pre_mlp_layer_?norm|pre_feedforward_layer_?norm|ffn_norm|mlp_norm|post_attention_(?:layer_?)?norm|ln_?2\b"
         r"|norm_?2\b|post_attn_norm", " second norm "),
        (r"input_(?:layer_?)?norm|attention_norm|attn_norm|ln_?1\b|norm_?1\b", " first norm "),
        (r"final_(?:layer_?)?norm|ln_f|norm_f", " final norm "),
        (r"\bwq\b|query|q_?proj", " q proj "),
        (r"\bwk\b|key|k_?proj", " k proj "),
        (r"\bwv\b|value|v_?proj", " v proj "),
        (r"\bwo\b|linear_proj|o_?proj|out_?proj|c_proj|dense", " out proj "),
        (r"self_att(?:ention|n)|selfattention|attention|attn", " attn "),
        (r"feed_?forward|ffn", " mlp "),
        (r"rms_?norm|layer_?norm", " norm "),
        (r"word_embeddings?|embed_?tokens?|tok_embeddings?|wte|embeddings?|\bembed\b", " embed "),
        (r"position_embed\w*|embed_positions|wpe", " position embed "),
        (r"lm_head|output_layer|head\b", " head "),
        (r"activation(?:_fn|_func)?|act_fn|act_func|\bact\b", " act "),
        (r"transformer|model|module", " model "),
        (r"layers?|blocks?|\bh\b", " layer "),
    )
]  # fmt: skip
"""Names of the same part in llama, GLM, GPT-2, BLOOM, Megatron and similar models, replaced in this order."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[a-z]+|\d+")


def split_numbers(data_id: str) -> tuple[str, tuple[int, ...]]:
    """Return an id with stars for the numbers of its layer (or gen_id's count) and of experts, and these numbers.

    "model.layers.3.mlp" is ("model.layers.*.mlp", (3,)). Other numbers stay, because they distinguish labels. An id
    that contains a star is not changed.
    """
    if "*" in data_id:
        return data_id, ()
    form: list[str] = []
    numbers: list[int] = []
    end = 0
    for found in _NUMBER.finditer(data_id):
        before = (data_id, end, found.start())
        if (numbers and not _BEFORE_EXPERT.search(*before)) or _BEFORE_CALL.search(*before):
            continue
        group = found.lastgroup or "part"
        if (found.start(group) == 0 and group == "part") or str(int(found[group])) != found[group]:
            continue  # 03 is not a number that a star on the other side may stand for
        form.append(data_id[end : found.start(group)])
        numbers.append(int(found[group]))
        end = found.end(group)
    return "*".join([*form, data_id[end:]]), tuple(numbers)


def name_tokens(form: str) -> frozenset[str]:
    """Return the words of an id, with one word for each meaning: "self_attention.dense" is {attn, out, proj}."""
    text = _HUMP.sub("_", form).lower().replace("*", " ")
    for pattern, word in _SYNONYMS:
        text = pattern.sub(word, text)
    words = {word.rstrip("s") or word for word in _WORD.findall(text)}
    if {"mlp", "out"} <= words:  # GPT-2 calls the output projections of attention and MLP both c_proj
        words = words - {"out"} | {"down"}
    return frozenset(words)

"""What label ids mean: their numbers (layer, expert) apart from their words, and words that mean the same as one."""

from __future__ import annotations

import re

_NUMBER = re.compile(
    r"(?<=[./\[])(?P<part>\d{1,9})(?=[./\]]|$)"  # layers.3.mlp, layers/3/mlp, layers[3]
    r"|(?<=layer)_?(?P<layer>\d{1,9})(?!\d)|(?<=block)_?(?P<block>\d{1,9})(?!\d)"
    r"|^data_[\d-]+_(?P<call>\d{1,9})$"  # what gen_id makes: a run's stamp and a count
    r"|(?:^|(?<=[./]))(?P<dumped>\d{1,9})(?=_\w*layer)",  # 12_ChatGlm6BLayerEncoderOperation
    re.IGNORECASE,
)
_OF_EXPERTS = re.compile(r"experts?[./\[]$", re.IGNORECASE)

_OF_CALLS = re.compile(r"(?:forward|backward|inputs?|outputs?|args|parameters)[./\[]$", re.IGNORECASE)
"""What msprobe and hooks number, in models with and without layers: calls and tensors."""

_SAME = [
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
"""Names of the same thing in llama, GLM, GPT-2, BLOOM, Megatron and their like; the first that fits a place counts."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[a-z]+|\d+")


def split_numbers(data_id: str) -> tuple[str, tuple[int, ...]]:
    """Return an id with a star for its layer's number (or gen_id's count) and for those of experts, and the numbers.

    "model.layers.3.mlp" is ("model.layers.*.mlp", (3,)); other numbers stay, for they tell things apart. An id that has
    a star of its own stays as it is.
    """
    if "*" in data_id:
        return data_id, ()
    form: list[str] = []
    numbers: list[int] = []
    end = 0
    for found in _NUMBER.finditer(data_id):
        before = (data_id, end, found.start())
        if (numbers and not _OF_EXPERTS.search(*before)) or _OF_CALLS.search(*before):
            continue
        group = found.lastgroup or "part"
        if (found.start(group) == 0 and group == "part") or str(int(found[group])) != found[group]:
            continue  # 03 is no number that a star on the other side may stand for
        form.append(data_id[end : found.start(group)])
        numbers.append(int(found[group]))
        end = found.end(group)
    return "*".join([*form, data_id[end:]]), tuple(numbers)


def name_tokens(form: str) -> frozenset[str]:
    """Return the words of an id, those that mean the same as one: "self_attention.dense" is {attn, out, proj}."""
    text = _HUMP.sub("_", form).lower().replace("*", " ")
    for pattern, word in _SAME:
        text = pattern.sub(word, text)
    words = {word.rstrip("s") or word for word in _WORD.findall(text)}
    if {"mlp", "out"} <= words:  # GPT-2 calls both ways out of a block c_proj
        words = words - {"out"} | {"down"}
    return frozenset(words)

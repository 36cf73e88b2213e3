"""In which order tensors are compared whose files do not tell it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.dumps.order import OrderBasis, call_key, find_order
from aclcmp.orchestrator.dumps.registry import read_dump

LLAMA = (
    *("model.embed_tokens", "model.layers.2.input_layernorm"),
    *(f"model.layers.2.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj")),
    *("model.layers.2.self_attn", "model.layers.2.post_attention_layernorm"),
    *(f"model.layers.2.mlp.{name}" for name in ("gate_proj", "act_fn", "down_proj")),
    *("model.layers.2.mlp", "model.layers.2", "model.layers.10.input_layernorm", "model.layers.10", "model.norm"),
    *("model", "lm_head"),
)
GPT2 = (
    *("transformer.wte", "transformer.wpe", "transformer.h.0.ln_1", "transformer.h.0.attn.c_attn"),
    *("transformer.h.0.attn.c_proj", "transformer.h.0.attn", "transformer.h.0.ln_2", "transformer.h.0.mlp.c_fc"),
    *("transformer.h.0.mlp.act", "transformer.h.0.mlp.c_proj", "transformer.h.0.mlp", "transformer.h.0"),
    *("transformer.ln_f", "transformer", "lm_head"),
)
BERT = (
    *("embeddings.word_embeddings", "embeddings", "encoder.layer.0.attention.self.query"),
    *("encoder.layer.0.attention.self.key", "encoder.layer.0.attention.self.value", "encoder.layer.0.attention.self"),
    *("encoder.layer.0.attention.output.dense", "encoder.layer.0.attention.output", "encoder.layer.0.attention"),
    *("encoder.layer.0.intermediate.dense", "encoder.layer.0.intermediate", "encoder.layer.0.output.dense"),
    *("encoder.layer.0.output", "encoder.layer.0", "encoder.layer.1", "encoder", "pooler"),
)
GGML = (
    *("inp_embd", "attn_norm-0", "Qcur-0", "Kcur-0", "Vcur-0", "attn_out-0", "ffn_norm-0", "ffn_gate-0", "ffn_up-0"),
    *("ffn_down-0", "l_out-0", "attn_norm-1", "l_out-1", "attn_norm-10", "result_norm", "result_output"),
)


@pytest.mark.parametrize("names", [LLAMA, GPT2, BERT, GGML, ("a.1", "a.2", "a.10", "a", "b")])
def test_names_sort_as_models_compute(names: tuple[str, ...]) -> None:
    assert sorted(sorted(names), key=call_key) == list(names)


def test_times_tell_unless_they_follow_the_alphabet() -> None:
    names = ["layers.0.mlp", "layers.0.self_attn", "layers.1.mlp"]
    assert find_order(names, [2.0, 1.0, 3.0]) == (OrderBasis.TIMES, [1, 0, 2])
    assert find_order(names, [1.0, 2.0, 3.0]) == (OrderBasis.NAMES, [1, 0, 2]), "as copies of files do"
    assert find_order(names, [1.0, 1.0, 1.0]) == (OrderBasis.NAMES, [1, 0, 2])


def test_files_of_a_folder(tmp_path: Path) -> None:
    for when, name in enumerate(("z", "m", "a")):
        np.save(tmp_path / f"{name}.npy", np.zeros(3))
        os.utime(tmp_path / f"{name}.npy", (1e9 + when, 1e9 + when))
    index = read_dump(tmp_path, "pta", tmp_path / "scratch")
    assert index is not None and index.order is OrderBasis.TIMES
    assert [record.data_id for record in index.indices[0].records] == ["z", "m", "a"]
    np.savez(tmp_path / "one.npz", z=np.zeros(2), m=np.zeros(2), a=np.zeros(2))
    index = read_dump(tmp_path / "one.npz", "pta", tmp_path / "scratch")
    assert index is not None and index.order is OrderBasis.CALLS
    assert [record.data_id for record in index.indices[0].records] == ["z", "m", "a"]

"""Levels and layers are read from names; low-level labels find the high-level label that they are part of."""

import pytest

from aclcmp.orchestrator.core.levels import Level, kind_in_layers, level_of, with_parents
from aclcmp.orchestrator.core.regions import LabelKey

CHATGLM = (
    "0_ChatGlm6BModelEncoderTorch/12_ChatGlm6BLayerEncoderOperationGraphRunner/3_SelfAttentionOpsChatglm6bRunner"
    "/after/outTensor0.bin"
)


@pytest.mark.parametrize(
    ("data_id", "path", "said", "granularity", "low", "layer"),
    [
        ("layers.12.mlp.out", "", "", "op", False, "12"),
        ("model.layers.12", "", "", "layer", False, "12"),
        ("layers.12.out", "", "", "layer", False, "12"),
        ("layers.12.1", "", "", "layer", False, "12"),
        ("transformer.h.3.attn", "", "", "op", False, "3"),
        ("blocks[7]", "", "", "layer", False, "7"),
        ("12_DecoderLayer/attn", "", "", "op", False, "12"),
        ("lm_head", "", "", "model", False, ""),
        ("lm_head.output.0", "", "", "model", False, ""),
        ("Functional.linear.50.forward.output.0", "", "", "model", False, ""),
        ("Tensor.__add__.3.forward.input.1", "", "", "model", False, ""),
        ("Module.model.layers.3.mlp.Linear.forward.0.output.0", "", "", "op", False, "3"),
        ("Module.lm_head.Linear.forward.0.output.0", "", "", "model", False, ""),
        ("attn_norm-12", "", "", "op", False, "12"),
        ("l_out-12", "", "", "layer", False, "12"),
        ("Qcur-3 (reshaped)", "", "", "op", False, "3"),
        ("gpt-2", "", "", "op", False, "2"),
        ("lm_head", "", "op", "op", False, ""),
        ("layers.12.out", "", "model", "model", False, "12"),
        ("data_20261123-020533_0", "", "", "", False, ""),
        ("data_20261123-020533_0", CHATGLM, "", "op", True, "12"),
        ("layers.12.attn.softmax", CHATGLM, "", "op", True, "12"),
        ("data_20261123-020533_0", "0_M/4_DecoderLayer/after/outTensor0.bin", "", "layer", True, "4"),
        ("data_20261123-020533_0", "0_ChatGlmModel/after/outTensor0.bin", "", "model", True, ""),
        ("x", "40_Decoder_layer/2_Attn/after/outtensor0.bin", "", "op", True, "40"),
        ("x", "", "", "model", False, ""),
        ("0", "", "", "model", False, ""),
        ("", "", "", "model", False, ""),
        ("./[.]/", "", "", "model", False, ""),
    ],
)
def test_names(data_id: str, path: str, said: str, granularity: str, low: bool, layer: str) -> None:
    assert level_of(data_id, path, said) == Level(granularity, low, layer)


def test_what_is_alike_in_all_layers() -> None:
    assert kind_in_layers("attn_norm-12", "12") == "attn_norm-*"
    assert kind_in_layers("Module.layers.3.mlp.forward.0.output.3", "3") == "Module.layers.*.mlp.forward.0.output.3"
    assert kind_in_layers("Functional.linear.50.forward.output.0", "") == "Functional.linear.50.forward.output.0"


def parents(*labels: tuple[str, str]) -> dict[str, str]:
    """The parents of labels, given (id, tensor path) in golden order."""
    keys = [LabelKey(0, name, 0) for name, _ in labels]
    levels = {key: level_of(key.label, path, "") for key, (_, path) in zip(keys, labels, strict=True)}
    return {
        key.label: level.parent.label if level.parent else ""
        for key, level in with_parents(levels, keys).items()
        if level.low
    }


def test_the_nearest_name_of_the_same_layer_is_the_parent() -> None:
    found = parents(
        ("layers.2.attn.out", ""),
        ("layers.2.out", ""),
        ("layers.3.attn.q", ""),
        ("layers.3.attn.softmax", "0_M/3_Layer/1_Attn/2_Softmax/after/outTensor0.bin"),
        ("layers.3.mlp.gate", "0_M/3_Layer/2_Mlp/0_Gate/after/outTensor0.bin"),
        ("layers.3.attn.out", ""),
        ("layers.3.out", ""),
        ("layers.4.norm", "0_M/4_Layer/0_Norm/after/outTensor0.bin"),
    )
    assert found == {"layers.3.attn.softmax": "layers.3.attn.out", "layers.3.mlp.gate": "layers.3.attn.out"} | {
        "layers.4.norm": ""
    }


def test_generated_ids_go_by_the_layer_of_their_file_and_by_order() -> None:
    low = "0_M/1_ChatGlm6BLayer/3_SelfAttention/after/outTensor0.bin"
    found = parents(("layers.0.out", ""), ("data_1_0", low), ("layers.1.out", ""), ("layers.2.out", ""))
    assert found == {"data_1_0": "layers.1.out"}


def test_another_task_has_parents_of_its_own() -> None:
    keys = [LabelKey(0, "layers.1.out", 0), LabelKey(1, "k", 0)]
    levels = {keys[0]: Level("layer", False, "1"), keys[1]: Level("op", True, "1")}
    assert with_parents(levels, keys)[keys[1]].parent is None

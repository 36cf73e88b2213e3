"""Quantised checkpoints: what tensors mean, how inputs are rounded, what it costs; unknown schemes are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aclcmp.labeling.engines.price import measure_price
from aclcmp.labeling.engines.quantised import (
    QuantisedLayer,
    dequantise,
    put_layers,
    quantised_only,
    read_checkpoint,
    round_inputs,
    unpack,
)
from aclcmp.labeling.engines.quantised_config import Quantised, Scheme, read_schemes
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.engines.check_input import GoldenModel
from aclcmp.orchestrator.errors import UsageError

INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
BY_TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True}
CHANNEL = Quantised("int", 8, "channel", symmetric=True, dynamic=False)
TOKEN = Quantised("int", 8, "token", symmetric=True, dynamic=True)
W8A8 = Scheme(("Linear",), CHANNEL, TOKEN)


def config(weights: object = INT8, inputs: object = BY_TOKEN, **changes: object) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    told = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}}
    return {"quantization_config": told | changes}


def test_schemes_have_their_usual_names() -> None:
    assert read_schemes({}) == ()
    (scheme,) = read_schemes(config())
    assert scheme == W8A8 and scheme.name == "W8A8"
    group = INT8 | {"num_bits": 4, "strategy": "group", "group_size": 32}
    (scheme,) = read_schemes(config(group, None, format="pack-quantized"))
    assert scheme.name == "W4A16" and scheme.weights.block == (32,) and scheme.inputs is None
    (scheme,) = read_schemes(config(INT8 | {"type": "float"}, BY_TOKEN | {"type": "float"}, format="float-quantized"))
    assert scheme.name == "W8A8 fp8"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method 'awq'"),
        ({"quantization_config": 3}, "no object"),
        (config(format="nvfp4-pack-quantized"), "format 'nvfp4-pack-quantized'"),
        (config(INT8 | {"num_bits": 3}), "int3 by channel"),
        (config(INT8 | {"strategy": "group"}), r"blocks of \[None\]"),
        (config(INT8 | {"actorder": "group"}), "order of their own"),
        (config(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme"),
        (config(config_groups={}), "no config_groups"),
        (config(config_groups={"g": {"targets": ["re:("], "weights": INT8}}), r"the target 're:\(' is no pattern"),
        (config(weights=None), "the weights of group_0"),
    ],
)
def test_what_is_not_known_is_refused(found: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(AclcmpError, match=f"not known.*{words}.*known is compressed-tensors"):
        read_schemes(found)
    (tmp_path / "config.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match=words):
        GoldenModel(tmp_path).check()


def test_options_on_prices_are_for_quantised_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="--price is for quantised models"):
        GoldenModel(tmp_path, price=True).check()
    (tmp_path / "config.json").write_text(json.dumps(config(inputs=None)))
    with pytest.raises(UsageError, match="of W8A16 only weights are quantised; give --original"):
        GoldenModel(tmp_path, price=True).check()


def test_weights_are_what_they_stand_for() -> None:
    numbers = torch.tensor([[1, -2, 3, 4], [5, 6, -7, 8]], dtype=torch.int8)
    by_channel = dequantise(CHANNEL, numbers, {"weight_scale": torch.tensor([[0.5], [2.0]])})
    assert by_channel.tolist() == [[0.5, -1, 1.5, 2], [10, 12, -14, 16]]
    of_group = Quantised("int", 8, "group", symmetric=False, dynamic=False, block=(2,))
    parts = {
        "weight_scale": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "weight_zero_point": torch.tensor([[0, 1], [0, 0]]),
    }
    assert dequantise(of_group, numbers, parts).tolist() == [[1, -2, 4, 6], [15, 18, -28, 32]]
    block = Quantised("float", 8, "block", symmetric=True, dynamic=False, block=(1, 3))
    stored = numbers.to(torch.float8_e4m3fn)
    parts = {"weight_scale": torch.tensor([[1.0, 10.0], [2.0, 20.0]])}
    assert dequantise(block, stored, parts).tolist() == [[1, -2, 3, 40], [10, 12, -14, 160]]


def test_int4_words_have_the_lowest_bits_first() -> None:
    words = torch.tensor([[0x76543210 + 0x08]], dtype=torch.int32)  # 8 is 0
    assert unpack(words, 4, 6).tolist() == [[0, -7, -6, -5, -4, -3]]
    assert unpack(torch.tensor([[-1]], dtype=torch.int32), 8, 4).tolist() == [[127] * 4]


def test_inputs_are_rounded_by_token() -> None:
    x = torch.tensor([[127.0, 0.6, -3.4], [1.27, 0.006, 0.0]])
    assert torch.allclose(round_inputs(x, TOKEN), torch.tensor([[127.0, 1.0, -3.0], [1.27, 0.01, 0.0]]))
    assert round_inputs(torch.zeros(1, 3), TOKEN).tolist() == [[0, 0, 0]]
    told = Quantised("int", 8, "tensor", symmetric=True, dynamic=False)
    assert round_inputs(x, told, torch.tensor(1.0)).tolist() == [[127, 1, -3], [1, 0, 0]]
    with pytest.raises(AclcmpError, match="input_scale"):
        round_inputs(x, told)
    asymmetric = round_inputs(torch.tensor([[0.0, 2.55]]), Quantised("int", 8, "token", symmetric=False, dynamic=True))
    assert torch.allclose(asymmetric, torch.tensor([[0.0, 2.55]]))
    fp8 = round_inputs(torch.tensor([[448.0, 17.0]]), Quantised("float", 8, "token", symmetric=True, dynamic=True))
    assert fp8.tolist() == [[448.0, 16.0]]


class Model(torch.nn.Module):
    """Two layers from token to logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = torch.nn.Embedding(16, 32)
        self.one, self.two = torch.nn.Linear(32, 32, bias=False), torch.nn.Linear(32, 16)

    def forward(self, tokens: Any, use_cache: bool = True) -> Any:
        return type("Output", (), {"logits": self.two(torch.tanh(self.one(self.embed(tokens))))})()


def layers_of(model: Model, original: Any = None) -> dict[str, QuantisedLayer]:
    with torch.no_grad():
        return {
            name: QuantisedLayer(W8A8, getattr(model, name).weight.clone(), original=original)
            for name in ("one", "two")
        }


def test_the_price_of_a_layer_is_what_it_alone_changes() -> None:
    model = Model()
    layers = layers_of(model)
    layers["two"].weight *= 1.0
    put_layers(model, layers)
    said: list[str] = []
    price = measure_price(model, layers, [[1, 2, 3], [4, 5]], "W8A8", by_layer=True, say=said.append)
    assert price is not None and price.against == "own" and price.tokens == price.layer_tokens == 5
    assert len(said) == 2 and {each.layer for each in price.layers} == {"one", "two"}
    assert price.layers[0].logits >= price.layers[1].logits > 0
    assert 1e-3 < price.logits < 3e-2
    with torch.inference_mode(), quantised_only(layers, ()):
        whole = model(torch.tensor([[1, 2, 3]])).logits
    assert torch.allclose(whole, Model()(torch.tensor([[1, 2, 3]])).logits, atol=1e-6), (
        "without quantisation it is the model"
    )
    assert all(layer.on for layer in layers.values())


def test_of_weights_alone_the_price_is_known_with_their_original_only() -> None:
    model = Model()
    scheme = Scheme(("Linear",), CHANNEL, None)
    layers = {"one": QuantisedLayer(scheme, model.one.weight.detach().clone())}
    put_layers(model, layers)
    assert measure_price(model, layers, [[1, 2]], "W8A16", by_layer=True, say=print) is None
    layers["one"].original = layers["one"].weight * 1.1
    price = measure_price(model, layers, [[1, 2]], "W8A16", by_layer=False, say=print)
    assert price is not None and price.against == "original" and price.logits > 1e-2 and price.layers == ()


def test_a_checkpoint_that_is_not_as_told_is_refused(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    with pytest.raises(AclcmpError, match="cannot be read"):
        read_checkpoint(tmp_path, (W8A8,))
    whole = {"a.weight": torch.ones(2, 4, dtype=torch.int8), "a.weight_scale": torch.ones(2, 1), "b": torch.ones(3)}
    save_file(whole, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path, (W8A8,))
    assert (
        list(found.layers) == ["a"]
        and list(found.state) == ["b"]
        and dict(found.named_parameters()).keys() == whole.keys()
    )
    with pytest.raises(AclcmpError, match="no scheme of config"):
        read_checkpoint(tmp_path, ())
    save_file(whole | {"a.weight_scale": torch.ones(3, 1)}, tmp_path / "model.safetensors")
    with pytest.raises(AclcmpError, match="a is not as W8A8 says"):
        read_checkpoint(tmp_path, (W8A8,))
    save_file({"a.weight": whole["a.weight"]}, tmp_path / "model.safetensors")
    with pytest.raises(AclcmpError, match=r"a.weight is torch.int8, and has no scale"):
        read_checkpoint(tmp_path, (W8A8,))
    with pytest.raises(AclcmpError, match="a is quantised, and is no linear layer"):
        put_layers(Model(), {"a": QuantisedLayer(W8A8, whole["a.weight"].float())})

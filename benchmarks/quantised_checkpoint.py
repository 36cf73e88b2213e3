"""Quantised checkpoints of a model folder, as LLM Compressor writes them (compressed-tensors), by round to nearest.

    python benchmarks/quantised_checkpoint.py SOURCE TARGET w8a8|fp8|w4a16 [LAYERS]

Needs torch, safetensors and nothing else. The output layer is not quantised. With LAYERS the first ones alone are kept.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GROUP = 32
"""Numbers that share a scale in w4a16."""
_WEIGHTS = {
    "w8a8": {"num_bits": 8, "type": "int", "strategy": "channel"},
    "fp8": {"num_bits": 8, "type": "float", "strategy": "channel"},
    "w4a16": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP},
}
_FORMATS = {"w8a8": "int-quantized", "fp8": "float-quantized", "w4a16": "pack-quantized"}


def quantise(source: Path, target: Path, form: str, layers: int | None = None) -> None:
    """Write a quantised copy of a model folder."""
    config = json.loads((source / "config.json").read_text())
    layers = config["num_hidden_layers"] if layers is None else layers
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    state: dict[str, Any] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        parts = name.split(".")
        if parts[1] == "layers" and int(parts[2]) >= layers:
            continue
        if parts[-2].endswith("_proj"):
            module = name.removesuffix(".weight")
            state |= {f"{module}.{part}": value for part, value in quantise_weight(tensor.float(), form).items()}
        else:
            state[name] = tensor.to(torch.bfloat16)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target / "model.safetensors")
    inputs = {"num_bits": 8, "type": _WEIGHTS[form]["type"], "strategy": "token", "symmetric": True, "dynamic": True}
    group = {
        "targets": ["Linear"],
        "weights": {**_WEIGHTS[form], "symmetric": True, "dynamic": False},
        "input_activations": None if form == "w4a16" else inputs,
    }
    quantised = {
        "quant_method": "compressed-tensors",
        "format": _FORMATS[form],
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    config |= {"num_hidden_layers": layers, "dtype": "bfloat16", "quantization_config": quantised}
    (target / "config.json").write_text(json.dumps(config, indent=1))


def quantise_weight(weight: torch.Tensor, form: str) -> dict[str, torch.Tensor]:
    """Return the tensors that stand for a weight [out, in] in a checkpoint, by the ends of their names."""
    if form == "w4a16":
        groups = weight.reshape(len(weight), -1, GROUP)
        scale = (groups.abs().amax(-1) / 7).clamp_min(1e-8).to(torch.bfloat16)
        numbers = (groups / scale.float()[..., None]).round().clamp(-8, 7).reshape(weight.shape)
        return {
            "weight_packed": pack(numbers.to(torch.int64)),
            "weight_scale": scale,
            "weight_shape": torch.tensor(weight.shape, dtype=torch.int64),
        }
    high = 127.0 if form == "w8a8" else 448.0
    scale = (weight.abs().amax(1, keepdim=True) / high).clamp_min(1e-8)
    numbers = weight / scale
    stored = numbers.round().to(torch.int8) if form == "w8a8" else numbers.to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale": scale}


def pack(numbers: torch.Tensor) -> torch.Tensor:
    """Return int4 numbers [n, 8 m] as int32 words [n, m], the lowest bits first."""
    words = (numbers + 8).reshape(len(numbers), -1, 8) << torch.arange(0, 32, 4)
    words = words.sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


if __name__ == "__main__":
    quantise(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else None)

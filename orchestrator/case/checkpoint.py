"""A model's folder as transformers writes it: parameters by name, and what its configuration tells of modules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
from aclcmp.orchestrator.case.label_rows import StoredTensor
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.core.regions import Source
from aclcmp.orchestrator.dumps.safetensors import read_safetensors
from aclcmp.orchestrator.errors import UsageError

_EPS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "layernorm_epsilon")
_USUAL_EPS = (1e-6, 1e-5, 1e-12)
_PARAMETERS = ("weight", "bias")
_OF_QUANTISED = ("weight_scale", "weight_scale_inv", "weight_packed", "qweight")
"""Tensors that a module has whose weight is stored as other numbers than it stands for."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention with rotary embeddings."""

    queries: int
    keys: int
    """Heads of keys and values."""
    size: int
    base: float
    """Base of the rotary embedding."""
    scale: float
    """Factor of the scores."""


class Checkpoint:
    """The parameters of a model, read one at a time."""

    def __init__(self, folder: Path) -> None:
        """Index a folder. Raises UsageError where it has no parameters."""
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            raise UsageError(f"--model {folder} has no .safetensors file; give the folder of golden's checkpoint")
        self._tensors: dict[str, DumpedTensor] = {}
        for file in files:
            found = read_safetensors(str(file)).tensors
            self._tensors |= {name: each for name, each in found if isinstance(each, DumpedTensor)}
        self._config = _read_config(folder / "config.json")

    @property
    def eps(self) -> tuple[float, ...]:
        """The terms that norms may add to the variance: that of the configuration, or else those that are usual."""
        told = [self._config[name] for name in _EPS if isinstance(self._config.get(name), (int, float))]
        return tuple(map(float, told)) or _USUAL_EPS

    @property
    def heads(self) -> Heads | None:
        """The heads of its attention with rotary embeddings; None where the configuration does not tell."""
        rope = self._config.get("rope_parameters")
        numbers = self._config | (rope if isinstance(rope, dict) else {})
        try:
            count = int(numbers["num_attention_heads"])
            size = int(numbers.get("head_dim") or numbers["hidden_size"] // count)
            base = float(numbers["rope_theta"])
            scale = float(numbers.get("query_pre_attn_scalar") or size) ** -0.5
            return Heads(count, int(numbers.get("num_key_value_heads") or count), size, base, scale)
        except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
            return None

    def parameters(self, module: str) -> dict[str, DumpedTensor]:
        """Return the parameters of a module, "weight" and "bias" as far as it has them.

        The module's name may lack the beginning of the checkpoint's names. A head without a weight of its own has that
        of the embedding. A quantised module has none.
        """
        if self.is_quantised(module):
            return {}
        found = {kind: self._find(f"{module}.{kind}") for kind in _PARAMETERS}
        if not any(found.values()) and module.split(".")[-1] == "lm_head" and self._config.get("tie_word_embeddings"):
            found["weight"] = self._find("embed_tokens.weight") or self._find("wte.weight")
        return {kind: each for kind, each in found.items() if each is not None}

    def is_quantised(self, module: str) -> bool:
        """Tell whether the weight of a module is quantised."""
        return any(self._find(f"{module}.{kind}") is not None for kind in _OF_QUANTISED)

    def _find(self, name: str) -> DumpedTensor | None:
        names = [each for each in self._tensors if each == name or each.endswith(f".{name}")]
        exact = [each for each in names if each == name] or names
        return self._tensors[exact[0]] if len(exact) == 1 else None


def nbytes_of(parameter: DumpedTensor) -> int:
    """Return how many bytes a parameter has."""
    return prod(parameter.shape) * DTYPES[parameter.dtype].itemsize


def read_rows(parameter: DumpedTensor, rows: Any = slice(None)) -> StoredTensor:
    """Read rows of a parameter. Raises UsageError where that is not possible."""
    try:
        stored = open_bits(Source(parameter.path, parameter.offset, parameter.dtype, parameter.shape))
        bits = np.array(stored.bits.reshape(parameter.shape)[rows])
        stored.check_pages()
    except ShardError as error:
        raise UsageError(str(error)) from None
    return StoredTensor(bits, parameter.dtype)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

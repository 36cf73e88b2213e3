"""What a checkpoint's config.json says of its quantisation: compressed-tensors, as LLM Compressor writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aclcmp.labeling.errors import AclcmpError

KNOWN = (
    "compressed-tensors with int8 or fp8 weights by channel, tensor or block (int-quantized, float-quantized, "
    "naive-quantized), and with int4 or int8 weights in groups (pack-quantized)"
)
_FORMATS = ("int-quantized", "float-quantized", "naive-quantized", "pack-quantized")
_WEIGHTS = ("tensor", "channel", "group", "block")
_INPUTS = ("tensor", "token", "group")
_SIZES = {"block": 2, "group": 1}
_BITS = {"int": (4, 8), "float": (8,)}


@dataclass(frozen=True, slots=True)
class Quantised:
    """How a tensor is quantised: the type of the numbers, and which of them share a scale."""

    kind: str
    """ "int" or "float" (8 bits: e4m3)."""
    bits: int
    strategy: str
    """ "tensor", "channel", "group" or "block" of weights; "tensor", "token" or "group" of inputs."""
    symmetric: bool
    dynamic: bool
    """Scales are found at run time; else the checkpoint has them."""
    block: tuple[int, ...] = ()
    """Sizes of a block, [out, in], or of a group along the inputs."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the linear layers of a group are quantised; `inputs` is None where their inputs are not."""

    targets: tuple[str, ...]
    weights: Quantised
    inputs: Quantised | None

    @property
    def name(self) -> str:
        """Its usual name: "W8A8", "W8A8 fp8", "W4A16"."""
        kind = " fp8" if self.weights.kind == "float" else ""
        return f"W{self.weights.bits}A{16 if self.inputs is None else self.inputs.bits}{kind}"

    def holds(self, module: str, kind: str) -> bool:
        """Tell whether a module of class `kind` is quantised so."""
        return any(
            re.match(target[3:], module) is not None if target.startswith("re:") else target in (module, kind)
            for target in self.targets
        )


def read_schemes(config: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """Return the schemes of a model's configuration, () where it is not quantised.

    Raises AclcmpError, which names the schemes that are known, for any other.
    """
    found = config.get("quantization_config", config.get("compression_config"))
    if not found:
        return ()
    if not isinstance(found, Mapping):
        raise _unknown("its quantization_config is no object")
    if (method := found.get("quant_method")) != "compressed-tensors":
        raise _unknown(f"quant_method {method!r}")
    if (form := found.get("format")) not in _FORMATS:
        raise _unknown(f"format {form!r}")
    for name in ("kv_cache_scheme", "transform_config"):
        if found.get(name):
            raise _unknown(f"a {name}")
    sparsity = found.get("sparsity_config")
    if sparsity and (not isinstance(sparsity, Mapping) or sparsity.get("format", "dense") != "dense"):
        raise _unknown("sparse weights")
    groups = found.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise _unknown("no config_groups")
    return tuple(_scheme(name, group) for name, group in groups.items())


def _scheme(name: str, group: object) -> Scheme:
    if not isinstance(group, Mapping) or not isinstance(group.get("targets"), list):
        raise _unknown(f"{name} without targets")
    targets = tuple(map(str, group["targets"]))
    for target in targets:
        try:
            re.compile(target[3:] if target.startswith("re:") else "")
        except re.error:
            raise _unknown(f"{name}: the target {target!r} is no pattern") from None
    if group.get("output_activations"):
        raise _unknown(f"{name} with quantised outputs")
    if group.get("format", "dense") not in (None, "dense", *_FORMATS):
        raise _unknown(f"{name} of format {group['format']!r}")
    weights = _quantised(f"the weights of {name}", group.get("weights"), _WEIGHTS)
    inputs = group.get("input_activations")
    return Scheme(
        targets,
        weights,
        _quantised(f"the inputs of {name}", inputs, _INPUTS) if inputs else None,
    )


def _quantised(what: str, told: object, strategies: tuple[str, ...]) -> Quantised:
    if not isinstance(told, Mapping):
        raise _unknown(f"{what}: nothing is told")
    kind, bits, strategy = told.get("type", "int"), told.get("num_bits", 8), told.get("strategy", "tensor")
    block, size = told.get("block_structure"), told.get("group_size")
    if bits not in _BITS.get(str(kind), ()) or strategy not in strategies:
        raise _unknown(f"{what}: {kind}{bits} by {strategy}")
    if told.get("actorder") not in (None, "weight", "static"):
        raise _unknown(f"{what}: groups in an order of their own (actorder {told['actorder']!r})")
    sizes: list[Any] = {"block": block if isinstance(block, list) else [block], "group": [size]}.get(strategy, [])
    if len(sizes) != _SIZES.get(strategy, 0) or not all(isinstance(each, int) and each > 0 for each in sizes):
        raise _unknown(f"{what}: blocks of {sizes!r}")
    return Quantised(
        str(kind), bits, strategy, bool(told.get("symmetric", True)), bool(told.get("dynamic", False)), tuple(sizes)
    )


def _unknown(what: str) -> AclcmpError:
    return AclcmpError(f"the quantisation is not known ({what}); known is {KNOWN}")

"""How deep in the model a label is: high or low level, what it belongs to, and which layer, read from its names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aclcmp.orchestrator.core.regions import LabelKey

_PARTS = re.compile(r"[./\[\]]+")
_OF_A_LAYER = re.compile(r"(?:out(?:put)?s?|in(?:put)?s?|hidden(?:_states?)?|residual|\d+)$")
"""What may follow a layer's number in the id of the layer's own tensors."""
_DUMPED_LAYER = re.compile(r"(\d{1,5})_\w*layer", re.IGNORECASE)
"""A folder of the library's dump, e.g. `12_ChatGlm6BLayerEncoderOperation`."""
_AROUND_A_TENSOR = re.compile(r"/(?:before|after)/[^/]*$", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![0-9A-Za-z])\d+")
_COUNTED = re.compile(r"forward|backward|(?:in|out)puts?(?:_args)?|kwargs|args|parameters(?:_grad)?")
"""After these a number counts calls or tensors."""
_CALL = re.compile(
    r"(?:Functional|Tensor|Torch|Distributed|NPU|VF|Aten|Mint|MintFunctional|MintDistributed|Jit|Primitive)\.\w+\."
)
"""What msprobe's name of a function's call begins with; the number behind it counts the calls."""
_OF_GGML = re.compile(r"([A-Za-z_][\w.]*)-(\d{1,5})(?: \([^()]*\))*")
"""How ggml (llama.cpp) names the tensors of a layer: `attn_norm-12`, `l_out-12`, `Qcur-12 (reshaped)`."""
_DIGITS = 5
"""Numbers of more are dates, times or counts, not those of layers."""
_GENERATED = re.compile(r"data_[\d-]+_\d+$")


@dataclass(frozen=True, slots=True)
class Level:
    """Place of a label in the model.

    `granularity` is "op", "layer", "model", or "" where neither the user nor a name tells. `low`: its actual side was
    dumped by the library. `layer` is the layer's number as text, "" outside of layers.
    """

    granularity: str = ""
    low: bool = False
    layer: str = ""
    parent: LabelKey | None = None
    """The high-level label under which a low-level one is shown: of its layer, the nearest by name, then in order."""

    @property
    def words(self) -> str:
        """The level in words: "high" or "low"."""
        return "low" if self.low else "high"


def level_of(data_id: str, tensor_path: str, said: str) -> Level:
    """Read a label's level from its id, the file that it names ("" for none), and what the user said of it."""
    path = _AROUND_A_TENSOR.sub("", tensor_path.replace("\\", "/"))
    number, rest = _layer(data_id)
    folders = [found[1] for part in path.split("/") if (found := _DUMPED_LAYER.match(part))]
    layer = number or (folders[-1] if folders else "")
    if said:
        return Level(said, bool(tensor_path), layer)
    if number:
        inferred = "layer" if not rest or _OF_A_LAYER.match(rest) else "op"
    elif tensor_path:
        last = path.rpartition("/")[2]
        inferred = "layer" if _DUMPED_LAYER.match(last) else "model" if "model" in last.lower() else "op"
    else:
        inferred = "" if _GENERATED.match(data_id) else "model"
    return Level(inferred, bool(tensor_path), layer)


def _layer(data_id: str) -> tuple[str, str]:
    """Return the layer's number in an id and what it is of the layer: ("12", "mlp.out") for "layers.12.mlp.out"."""
    if found := _OF_GGML.fullmatch(data_id):
        return found[2], "" if found[1] == "l_out" else found[1]
    parts = [part for part in _PARTS.split(data_id) if part]
    begin = 3 if _CALL.match(data_id) else 1
    for position, part in enumerate(parts):
        counts = position < begin or _COUNTED.fullmatch(parts[position - 1])
        if part.isdecimal() and not counts and len(part) <= _DIGITS:
            return part, ".".join(parts[position + 1 :])
        if found := _DUMPED_LAYER.match(part):
            return found[1], ".".join(parts[position + 1 :])
    return "", ""


def kind_in_layers(label: str, layer: str) -> str:
    """Return what a label is in every layer: its id without the number of its layer."""
    for found in _NUMBER.finditer(label) if layer else ():
        if found[0] == layer:
            return f"{label[: found.start()]}*{label[found.end() :]}"
    return label


def with_parents(levels: Mapping[LabelKey, Level], ordered: Sequence[LabelKey]) -> dict[LabelKey, Level]:
    """Find the parent of every low-level label; `ordered` holds all labels in golden order."""
    position = {key: place for place, key in enumerate(ordered)}
    high: dict[tuple[int, str], list[LabelKey]] = defaultdict(list)
    for key in ordered:
        if not levels[key].low and levels[key].layer:
            high[key.task, levels[key].layer].append(key)

    def parent(key: LabelKey) -> LabelKey | None:
        parts = _PARTS.split(key.label)

        def nearness(other: LabelKey) -> tuple[int, bool, bool, int]:
            distance = position[other] - position[key]
            same_turn = other.occurrence == key.occurrence
            return _common(parts, _PARTS.split(other.label)), same_turn, distance > 0, -abs(distance)

        return max(high[key.task, levels[key].layer], key=nearness, default=None)

    return {
        key: replace(level, parent=parent(key)) if level.low and level.layer else level for key, level in levels.items()
    }


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count

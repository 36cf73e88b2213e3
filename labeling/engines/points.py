"""Points of an engine's model: the modules that are labelled, and what the original names that which they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aclcmp.labeling.layout import Layout, Placement, Shard, layout_of

PARTS: Mapping[str, Sequence[str]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Fused module -> modules of the original, where the model's class tells no `packed_modules_mapping`."""


@dataclass(frozen=True, slots=True)
class Point:
    """One module and the labels of what it returns."""

    engine: str
    name: str
    module: Any
    layout: Placement | Layout | None = None
    parts: tuple[tuple[str, int, Placement | Layout | None], ...] = ()
    """Name, size along the last dimension, and layout of each part of a fused output."""
    residual: bool = False
    """It is a whole decoder layer, which returns (hidden, residual): the original has their sum."""
    input_layout: Placement | Layout | None = None
    """Layout of its input, where that is labelled too."""
    heads: bool = False
    """Its output may have a dimension of heads, which the label has not."""
    scale: Any = None
    """The original's module multiplies its output by this tensor."""

    @property
    def labels(self) -> list[str]:
        """Names of the labels of its output."""
        return [name for name, _, _ in self.parts] or [self.name]

    @property
    def site(self) -> str:
        """Call site of its labels."""
        return f"{self.engine}:{type(self.module).__name__}"

    def with_layouts(self) -> Point:
        """Return the point with its placements as layouts, made once and not for each label. Raises LabelError."""

        def layout(placement: Placement | Layout | None) -> Layout | None:
            return None if placement is None else layout_of(placement)

        parts = tuple((name, size, layout(placement)) for name, size, placement in self.parts)
        return replace(self, layout=layout(self.layout), parts=parts, input_layout=layout(self.input_layout))


def qkv_parts(sizes: Sequence[int], ranks: Sequence[int] | None, copies: int) -> list[tuple[int, Shard]]:
    """Return size and layout of the queries, keys and values of one rank.

    With more ranks than key-value heads several neighbours (`copies`) hold the same head.
    """
    queries, *others = sizes
    return [(queries, Shard(-1, ranks=ranks)), *((size, slice_of_heads(size, ranks, copies)) for size in others)]


def slice_of_heads(size: int, ranks: Sequence[int] | None, copies: int) -> Shard:
    """Return the layout of `size` channels of heads, which so many neighbouring ranks hold alike."""
    return Shard(-1, ranks=ranks) if copies == 1 else Shard(-1, parts=((size, copies),), ranks=ranks)


def fusion_point(
    engine: str,
    name: str,
    module: Any,
    packed: Mapping[str, Sequence[str]],
    parts: Sequence[tuple[int, Shard]],
    ranks: Sequence[int] | None,
) -> Point:
    """Return the point of a fused projection: its parts under the original's names, or all under its own name."""
    parent, _, own = name.rpartition(".")
    names = packed.get(own, ())
    if len(names) != len(parts):
        fused = tuple(part for size, layout in parts for part in layout.parts or (size,))
        return Point(engine, name, module, Shard(-1, parts=fused, ranks=ranks))
    return Point(
        engine,
        name,
        module,
        parts=tuple((f"{parent}.{each}", size, layout) for each, (size, layout) in zip(names, parts, strict=True)),
    )


def is_layer(name: str) -> bool:
    """Tell whether a module is a whole decoder layer: `model.layers.3`."""
    before, _, number = name.rpartition(".")
    return number.isdecimal() and before.rpartition(".")[2] in ("layers", "h", "blocks")

"""SGLang's notation for how ranks share a tensor: `t h[tp]`, `b s[cp,sp] (heads*dim)[tp] # ep:replicated`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aclcmp.orchestrator.dumps.axis_splits import AxisSplit

_DIM = re.compile(r"(?:1|[A-Za-z_]\w*|\([A-Za-z_]\w*(?: *\* *[A-Za-z_]\w*)+\))(?:\[([^\[\]]+)\])?")
_DECLARED = re.compile(r"dp:=\w+|(\w+):replicated")
_LONGEST = 1_000
AXES = ("tp", "cp", "ep", "sp")


class DimsError(ValueError):
    """Dims that do not follow the grammar, or that state what cannot be compared yet."""


def parse_dims(dims: str, ndim: int, axes: Mapping[str, tuple[int, int]]) -> tuple[AxisSplit, ...]:
    """Return the effect of each axis of more than one rank on a tensor of `ndim` dimensions.

    `axes` maps names to rank and size. In one dimension, the leftmost axis is outermost; axes that are not mentioned
    replicate. Raises DimsError.
    """
    if len(dims) > _LONGEST:
        raise DimsError(f"dims of {len(dims)} characters are no dims")
    shape, _, declarations = dims.partition("#")
    _check_declarations(declarations)
    tokens = re.findall(r"\([^)]*\)\S*|\S+", re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", ""), shape))
    if len(tokens) != ndim:
        raise DimsError(f"dims {dims!r} name {len(tokens)} dimensions, but the tensor has {ndim}")
    splits: list[AxisSplit] = []
    mentioned: set[str] = set()
    for dim, token in enumerate(tokens):
        named = _DIM.fullmatch(token)
        if named is None:
            raise DimsError(f"dims {dims!r}: {token!r} is no dimension")
        for modifier in named[1].split(",") if named[1] else ():
            axis, _, qualifiers = modifier.partition(":")
            if axis not in AXES or axis in mentioned:
                raise DimsError(f"dims {dims!r}: {axis!r} is no axis, or is there twice")
            mentioned.add(axis)
            options = {each for each in qualifiers.split("+") if each} - {"sharded", "natural"}
            if options - {"zigzag", "partial"} or len(options) > 1:
                raise DimsError(f"dims {dims!r}: {qualifiers!r} is no order or reduction")
            rank, size = axes.get(axis, (0, 1))
            if size == 1:
                continue
            summed = "partial" in options
            splits.append(AxisSplit(rank, size, None if summed else dim, summed, "zigzag" in options))
    for one, other in (("tp", "sp"), ("sp", "tp")):  # one group of ranks under two names
        if one in mentioned and axes.get(one) == axes.get(other):
            mentioned.add(other)
    others = [place for axis, place in axes.items() if axis not in mentioned and place[1] > 1]
    return (*(AxisSplit(rank, size) for rank, size in others), *splits)


def _check_declarations(declarations: str) -> None:
    for word in declarations.split():
        named = _DECLARED.fullmatch(word)
        if named is None or (named[1] and named[1] not in AXES):
            raise DimsError(f"{word!r} after # is neither dp:=GROUP nor AXIS:replicated")

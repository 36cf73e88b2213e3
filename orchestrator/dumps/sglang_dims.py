"""SGLang's words for how ranks share a tensor: `t h[tp]`, `b s[cp,sp] (heads*dim)[tp] # ep:replicated`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aclcmp.orchestrator.dumps.index import Split

_DIM = re.compile(r"(?:1|[A-Za-z_]\w*|\([A-Za-z_]\w*(?: *\* *[A-Za-z_]\w*)+\))(?:\[([^\[\]]+)\])?")
_DECLARED = re.compile(r"dp:=\w+|(\w+):replicated")
_LONGEST = 1_000
AXES = ("tp", "cp", "ep", "sp")


class DimsError(ValueError):
    """Words that are not of the grammar, or that say what cannot be compared yet."""


def splits_of(words: str, ndim: int, axes: Mapping[str, tuple[int, int]]) -> tuple[Split, ...]:
    """Return what each axis of more than one rank does to a tensor of `ndim` dimensions.

    `axes` are rank and size by name. In one dimension, the leftmost axis is outermost; axes that are not mentioned
    replicate. Raises DimsError.
    """
    if len(words) > _LONGEST:
        raise DimsError(f"dims of {len(words)} characters are no dims")
    shape, _, declared = words.partition("#")
    _check_declared(declared)
    dims = re.findall(r"\([^)]*\)\S*|\S+", re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", ""), shape))
    if len(dims) != ndim:
        raise DimsError(f"dims {words!r} name {len(dims)} dimensions, but the tensor has {ndim}")
    splits: list[Split] = []
    seen: set[str] = set()
    for dim, token in enumerate(dims):
        named = _DIM.fullmatch(token)
        if named is None:
            raise DimsError(f"dims {words!r}: {token!r} is no dimension")
        for modifier in named[1].split(",") if named[1] else ():
            axis, _, qualifiers = modifier.partition(":")
            if axis not in AXES or axis in seen:
                raise DimsError(f"dims {words!r}: {axis!r} is no axis, or is there twice")
            seen.add(axis)
            wanted = {each for each in qualifiers.split("+") if each} - {"sharded", "natural"}
            if wanted - {"zigzag", "partial"} or len(wanted) > 1:
                raise DimsError(f"dims {words!r}: {qualifiers!r} is no order or reduction")
            rank, size = axes.get(axis, (0, 1))
            if size == 1:
                continue
            summed = "partial" in wanted
            splits.append(Split(rank, size, None if summed else dim, summed, "zigzag" in wanted))
    for one, other in (("tp", "sp"), ("sp", "tp")):  # one group of ranks under two names
        if one in seen and axes.get(one) == axes.get(other):
            seen.add(other)
    unsaid = [place for axis, place in axes.items() if axis not in seen and place[1] > 1]
    return (*(Split(rank, size) for rank, size in unsaid), *splits)


def _check_declared(declared: str) -> None:
    for word in declared.split():
        named = _DECLARED.fullmatch(word)
        if named is None or (named[1] and named[1] not in AXES):
            raise DimsError(f"{word!r} after # is neither dp:=GROUP nor AXIS:replicated")

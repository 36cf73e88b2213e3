"""Layouts: how a rank's local tensor is part of the whole, in the terms of `torch.distributed.tensor`.

The written form is the same in shards, reports and layout files: `Shard(dim=1, parts=(8, 4, 4))`.
"""

from __future__ import annotations

import ast
import json
import operator
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from aclcmp.labeling.errors import LabelError

_LONGEST = 1 << 20
"""Characters of a written layout. A group of 65,536 ranks that form no range needs fewer."""
_MOST_RANKS = 1 << 20


Part = int | tuple[int, int]
"""Size of a part, or its size and the number of neighbouring ranks that hold the same slice of it."""


@dataclass(frozen=True, slots=True)
class Replicate:
    """Every rank of `ranks` (None: every rank that has the label) holds the same."""

    ranks: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Every rank holds a slice of the whole along dimension `dim` (negative: from the end), in the order of ranks."""

    dim: int
    parts: Sequence[Part] | None = None
    """Sizes of the slices that lie side by side in the local tensor, as in a fused projection: of the local tensor if
    they add up to its size, else of the whole, each part of which is then split evenly. Of a part (size, copies) so
    many neighbouring ranks hold the same slice: keys and values of which there are fewer heads than ranks."""
    zigzag: bool = False
    """True: rank i of n holds chunks i and 2n-1-i of 2n, the order of context parallelism with a causal mask."""
    size: int | None = None
    """The whole's size along `dim`; elements of the ranks beyond it are padding."""
    ranks: Sequence[int] | None = None
    """The ranks that share the dimension, in order: a process group. None: all that have the label."""

    @property
    def sizes_and_copies(self) -> tuple[tuple[int, int], ...]:
        """Size of each part, and how many neighbouring ranks hold the same slice of it."""
        return tuple((part, 1) if isinstance(part, int) else part for part in self.parts or ())


@dataclass(frozen=True, slots=True)
class Partial:
    """Every rank holds a summand: the whole is the sum over `ranks`, or over all ranks that have the label."""

    ranks: Sequence[int] | None = None
    op: str = "sum"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A placement of torch that cannot be compared, as torch writes it."""

    words: str
    ranks: Sequence[int] | None = None


Placement = Replicate | Shard | Partial | Unknown
Spans = tuple[tuple[int, int], ...]
"""Along one dimension: (start in the whole, length) of the stretches that the local tensor is made of, in its order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A label's layout as it is recorded: one placement for each mesh dimension, outermost first.

    `whole_shape`, and `spans` for each dimension, come from a DTensor or from another tool's dump; elsewhere they are
    None, and follow from the placements.
    """

    placements: tuple[Placement, ...]
    whole_shape: tuple[int, ...] | None = None
    spans: tuple[Spans, ...] | None = None

    @property
    def is_replicate(self) -> bool:
        """True where every rank holds the whole."""
        return all(isinstance(placement, Replicate) for placement in self.placements)

    def __str__(self) -> str:
        return ", ".join(map(placement_text, self.placements))

    @property
    def brief(self) -> str:
        """The layout without its ranks."""
        return ", ".join(placement_text(placement, with_ranks=False) for placement in self.placements)

    def to_json(self) -> str:
        """Return the layout as one line of JSON, the form in journals and shards."""
        return _to_json(self)

    @staticmethod
    def from_json(text: str) -> Layout:
        """Read what `to_json` wrote. Raises ValueError for anything else."""
        return _from_json(text)


@lru_cache(maxsize=1024)
def _to_json(layout: Layout) -> str:
    stored: dict[str, Any] = {"placements": [placement_text(placement) for placement in layout.placements]}
    if layout.whole_shape is not None and layout.spans is not None:
        stored |= {"whole_shape": layout.whole_shape, "spans": layout.spans}
    return json.dumps(stored)


@lru_cache(maxsize=4096)
def _from_json(text: str) -> Layout:
    try:
        stored = json.loads(text)
        texts = stored["placements"]
        if not isinstance(texts, list) or not texts or not all(isinstance(each, str) for each in texts):
            raise ValueError(f"not a layout: {text[:200]}")
        placements = tuple(map(_placement_from, texts))
        if stored.get("spans") is None:
            return Layout(placements)
        whole = tuple(map(operator.index, stored["whole_shape"]))
        spans = tuple(
            tuple((operator.index(start), operator.index(length)) for start, length in each) for each in stored["spans"]
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a layout: {text[:200]}") from error
    inside = len(spans) == len(whole) and all(
        start >= 0 and length >= 0 and start + length <= size < 2**63
        for each, size in zip(spans, whole, strict=False)
        for start, length in each
    )
    if not inside:
        raise ValueError(f"impossible place in the whole: {text[:200]}")
    return Layout(placements, whole, spans)


def placement_text(placement: Placement, *, with_ranks: bool = True) -> str:
    """Return a placement as it is written: `Shard(dim=1, ranks=range(0, 4))`."""
    if isinstance(placement, Unknown):
        return placement.words
    arguments = [placement.op] if isinstance(placement, Partial) else []
    for field in fields(placement):
        value = getattr(placement, field.name)
        if field.name != "op" and value is not None and value is not False and (with_ranks or field.name != "ranks"):
            arguments.append(f"{field.name}={value!r}")
    return f"{type(placement).__name__}({', '.join(arguments)})"


def layout_from_text(text: str) -> Layout:
    """Read a layout as it is written: placements with commas between them, `Partial()` for `Partial(sum)`.

    Nothing is evaluated. Raises ValueError with the mistake and an example.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"{len(text)} characters are too many")
        tree = ast.parse(f"({text.strip()},)", mode="eval").body
        if isinstance(tree, ast.Tuple) and len(tree.elts) == 1 and isinstance(tree.elts[0], ast.Tuple | ast.List):
            tree = tree.elts[0]  # in brackets, as in a script
        if not isinstance(tree, ast.Tuple | ast.List) or not tree.elts:
            raise ValueError("nothing is there")
        return layout_of([_placement_of_call(call) for call in tree.elts])
    except (SyntaxError, RecursionError, MemoryError):
        problem = "this is not how layouts are written"
    except (ValueError, LabelError) as error:
        problem = str(error)
    raise ValueError(f"{text[:200]!r}: {problem}; write e.g. Shard(dim=1, parts=(8, 4, 4)), Replicate() or Partial()")


def _placement_from(text: str) -> Placement:
    try:
        return layout_from_text(text).placements[0]
    except ValueError:
        return Unknown(text[:200])


def divisors(number: int) -> tuple[int, ...]:
    """Return the divisors of a number, ascending: into how many equal slices it can be cut."""
    return tuple(each for each in range(1, number + 1) if number % each == 0)


_PLACEMENTS: dict[str, type[Any]] = {"Shard": Shard, "Replicate": Replicate, "Partial": Partial}


def _placement_of_call(call: ast.expr) -> Placement:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in _PLACEMENTS:
        called = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
        raise ValueError(f"{ast.unparse(call)[:100]} is none of {', '.join(_PLACEMENTS)}{_meant(called, _PLACEMENTS)}")
    kind = _PLACEMENTS[call.func.id]
    names = [field.name for field in fields(kind)]
    names = ["op", "ranks"] if kind is Partial else names
    values: dict[str, Any] = {}
    if len(call.args) > len(names):
        raise ValueError(f"{call.func.id} takes {', '.join(names)}")
    for name, value in [*zip(names, call.args, strict=False), *((k.arg, k.value) for k in call.keywords)]:
        if name not in names or name in values:
            known = "" if name in names else _meant(name or "", names)
            raise ValueError(f"{call.func.id} takes {', '.join(names)}, each once{known}")
        values[name] = value.id if name == "op" and isinstance(value, ast.Name) else _constant(value)
    if kind is Shard and "dim" not in values:
        raise ValueError("Shard needs a dim")
    placement: Placement = kind(**values)
    return placement


def _meant(name: str, known: Iterable[str]) -> str:
    """Return a question after the name that was probably meant; "" where none is near."""
    from difflib import get_close_matches  # here and not above: it is for mistakes alone

    close = get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _constant(node: ast.expr) -> Any:
    """Return the value of a number, True, False, None, a tuple or list of numbers, or a range of them."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        ends = [ast.literal_eval(each) for each in node.args]
        if 1 <= len(ends) <= 3 and all(type(end) is int and abs(end) < 2**62 for end in ends):
            return range(*ends)
    return ast.literal_eval(node)


def layout_of(value: object) -> Layout:
    """Return the layout that a user gave as `layout=`: one placement, ours or torch's, or a sequence of them.

    One that this function returned is returned as it is. Raises LabelError for anything else, and for impossible
    placements.
    """
    if isinstance(value, Layout):
        return value
    several = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    placements = tuple(map(_check_placement, several))
    if not placements:
        raise LabelError("layout=() is empty; leave it out, or give a placement for each mesh dimension")
    open_ones = [p for p in placements if p.ranks is None and not isinstance(p, Replicate)]
    if len(placements) > 1 and open_ones:
        raise LabelError(
            f"layout={value!r}: of several placements each needs the ranks that it goes over: "
            f"{placement_text(open_ones[0])[:-1]}, ranks=...)"
        )
    return Layout(placements)


def dtensor_placement(placement: Any, ranks: Sequence[int] | None) -> Placement:
    """Return one of a DTensor's placements, over these ranks of its mesh; `Unknown` where it cannot be compared."""
    try:
        known = _check_placement(placement)
    except LabelError:
        kind = type(placement).__name__
        if "Partial" in kind:  # a maximum, or a sum whose summands are masked first
            kind = f"Partial({placement.reduce_op if kind == 'Partial' else kind.lstrip('_')})"
        return Unknown(kind, _group(ranks))
    return replace(known, ranks=_group(ranks))


def _check_placement(value: Any) -> Placement:
    """Return a placement, ours or torch's, as ours, with all its fields checked. Raises LabelError."""
    name = type(value).__name__
    try:
        ranks = _group(getattr(value, "ranks", None))
        if name == "Replicate":
            return Replicate(ranks)
        if name == "Partial":
            op = str(getattr(value, "op", None) or getattr(value, "reduce_op", "sum"))
            if op != "sum":
                raise LabelError(f"layout={value!r}: of Partial only the sum can be compared")
            return Partial(ranks)
        if name == "Shard":
            parts, size = getattr(value, "parts", None), getattr(value, "size", None)
            shard = Shard(
                operator.index(value.dim),
                None if parts is None else tuple(map(_check_part, parts)),
                bool(getattr(value, "zigzag", False)),
                None if callable(size) or size is None else operator.index(size),
                ranks,
            )
            _check_shard(shard)
            return shard
    except (TypeError, AttributeError) as error:
        raise LabelError(f"layout={value!r}: {error}") from None
    raise LabelError(f"layout={value!r} is not known; use Shard(dim), Replicate() or Partial()")


def _check_part(part: Any) -> Part:
    """Return a part with its numbers checked. Raises TypeError."""
    if not isinstance(part, Sequence):
        return operator.index(part)
    if len(part) != 2:
        raise TypeError(f"a part is a size, or (size, copies), not {part!r}")
    size, copies = map(operator.index, part)
    return size if copies == 1 else (size, copies)


def _check_shard(shard: Shard) -> None:
    parts = shard.sizes_and_copies
    if shard.parts is not None and not (parts and all(size >= 0 and 0 < copies < 2**31 for size, copies in parts)):
        raise LabelError(
            f"{placement_text(shard)}: parts are sizes, at least one and none negative, or (size, copies): how many "
            "ranks hold the same slice"
        )
    if shard.size is not None and not 0 <= shard.size < 2**62:
        raise LabelError(f"{placement_text(shard)}: size is the length of the whole along the dimension, 0 or more")
    if not -64 <= shard.dim < 64:
        raise LabelError(f"{placement_text(shard)}: no tensor has that dimension")
    if [shard.parts is not None, shard.zigzag, shard.size is not None].count(True) > 1:
        raise LabelError(f"{placement_text(shard)}: only one of parts, zigzag and size can be given")


def _group(ranks: Any) -> Sequence[int] | None:
    """Return ranks as a range if they form one, else as a tuple; for a torch process group its ranks.

    Raises LabelError.
    """
    if ranks is None:
        return None
    if not isinstance(ranks, Iterable):
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(ranks, getattr(torch.distributed, "ProcessGroup", ())):
            raise LabelError(f"ranks={ranks!r} is no group of ranks; give a list, a range or a torch ProcessGroup")
        ranks = torch.distributed.get_process_group_ranks(ranks)
    group = ranks if isinstance(ranks, range) else tuple(operator.index(rank) for rank in ranks)
    if len(group) > _MOST_RANKS or not group or min(group) < 0 or len(set(group)) != len(group):
        raise LabelError(f"ranks={ranks!r}: ranks are numbers from 0, each once".replace("\n", " "))
    if len(group) == 1:
        return range(group[0], group[0] + 1)
    step = group[1] - group[0]
    found = range(group[0], group[-1] + (1 if step > 0 else -1), step)
    return found if tuple(found) == tuple(group) else tuple(group)

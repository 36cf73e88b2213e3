"""The keys and values that a paged cache holds, as rows of labels: what is new in it, or has changed, is labelled.

After each forward the context of its requests is read through the table of blocks that attention reads it through. A
row is labelled when it is first seen, also where a prefix was cached before, and again whenever its bytes are others.
So each row is recorded once in a run that is right, while reading takes what attention takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.api import record_at, skip_at
from aclcmp.labeling.engines.contexts import MOST_REQUESTS, Context
from aclcmp.labeling.layout import Layout
from aclcmp.labeling.rows import Rows

KEYS, VALUES = "k_cache", "v_cache"
"""Last parts of the labels' names, behind that of the attention module."""
_SIDE = "acl"
_DIGIT = 128
"""Numbers below it are exact in every type that a cache has, but float8."""
_MOST_BYTES = 64 << 20
"""Most bytes of one layer's cache, as 64-bit integers, that are looked at together."""


@dataclass(frozen=True, slots=True)
class CachePoint:
    """The cache of one attention layer, and the labels of what it holds."""

    name: str
    """The attention module, as the original names it."""
    layer: Any
    """The engine's attention layer."""
    site: str
    keys: Layout | None
    values: Layout | None

    @property
    def labels(self) -> tuple[str, str]:
        """Names of the labels of its keys and values."""
        return f"{self.name}.{KEYS}", f"{self.name}.{VALUES}"


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where the contexts of a forward lie in the caches of layers that share a table of blocks: in b blocks."""

    table: Any
    """The table, kept so that no other gets its identity."""
    blocks: Any
    """Tensor of the blocks' numbers, shape (b,)."""
    used: Any
    """Tensor of booleans, shape (b, block size): whether the place in the block holds a token that is to be read."""
    requests: npt.NDArray[np.int32]
    """Shape (b,): which context the block is of."""
    first: npt.NDArray[np.int32]
    """Shape (b,): position of the first token of the block."""

    def spans(self, contexts: Sequence[Context]) -> Iterator[tuple[Context, slice, int]]:
        """Yield each context that has blocks, which ones, and the position where these begin."""
        ends = np.searchsorted(self.requests, np.arange(len(contexts) + 1)).tolist()
        for context, begin, end in zip(contexts, ends, ends[1:], strict=False):
            if end > begin:
                yield context, slice(begin, end), int(self.first[begin])


class KvCache:
    """The caches of a model's layers, and what was labelled of them."""

    def __init__(self, points: Sequence[CachePoint]) -> None:
        self._points = list(points)
        self._labelled: dict[str, dict[str, Any]] = {point.name: {} for point in points}
        """For each layer and request a tensor of the hash of each row that was labelled last, by position."""
        self._orders: dict[object, Any] = {}

    def label(self, contexts: Sequence[Context], table_of: Callable[[str], Any]) -> None:
        """Label what is new in the caches. `table_of` a layer are the blocks of each request, [requests, most blocks].

        A layer whose cache cannot be read is a failed label, and is read no more.
        """
        places: dict[object, _Places] = {}
        names: dict[object, Rows] = {}
        lost = []
        for point in self._points:
            try:
                at = self._places_of(point.layer, contexts, table_of(point.layer.layer_name), places)
                self._label_layer(point, contexts, at, names)
            except Exception as error:  # a label must not keep the engine from serving
                lost.append(point)
                for name in point.labels:
                    skip_at(point.site, _SIDE, name, f"its cache cannot be read: {type(error).__name__}: {error}")
        self._points = [point for point in self._points if point not in lost]

    def _places_of(self, layer: Any, contexts: Sequence[Context], table: Any, known: dict[object, _Places]) -> _Places:
        size, window = len(self._order_of(layer)), _window_of(layer)
        key = id(table), size, window
        if key not in known:
            known[key] = _places(contexts, table, size, window, layer.kv_cache.shape[0])
        return known[key]

    def _label_layer(
        self, point: CachePoint, contexts: Sequence[Context], at: _Places, names: dict[object, Rows]
    ) -> None:
        rows, new = self._new_rows(point, contexts, at)
        if not new.any():
            return
        shared = id(at), new.tobytes()
        if shared not in names:
            names[shared] = _names(contexts, at, new)
        keys = point.layer.num_kv_heads * point.layer.head_size
        with names[shared]:
            record_at(point.site, _SIDE, point.labels[0], rows[:, :keys], point.keys)
            record_at(point.site, _SIDE, point.labels[1], rows[:, keys:], point.values)

    def _new_rows(
        self, point: CachePoint, contexts: Sequence[Context], at: _Places
    ) -> tuple[Any, npt.NDArray[np.bool_]]:
        """Return the rows of a layer that are not as they were labelled last, and where they are, [b, block size]."""
        import torch

        cache, order, labelled = point.layer.kv_cache, self._order_of(point.layer), self._labelled[point.name]
        before, seen = torch.zeros(at.used.shape, dtype=torch.int64, device=cache.device), torch.zeros_like(at.used)
        for context, span, first in at.spans(contexts):
            known = labelled.pop(context.request, before[:0].view(-1))[first:]  # comes back as the latest one
            count = min(len(known), seen[span].numel())
            before[span].view(-1)[:count] = known[:count]
            seen[span].view(-1)[:count] = True
        rows, new, hashes = [], [], torch.empty_like(before)
        step = max(1, _MOST_BYTES // (8 * order.numel()))
        for part in (slice(begin, begin + step) for begin in range(0, len(at.blocks), step)):
            content = cache[at.blocks[part]].flatten(1)[:, order]
            hashes[part] = _hashes(content)
            new.append(at.used[part] & (~seen[part] | (hashes[part] != before[part])))
            rows.append(content[new[-1]])
        for context, span, first in at.spans(contexts):
            unread = hashes.new_zeros(first)
            labelled[context.request] = torch.cat([unread, hashes[span].view(-1)])[: len(context.tokens)]
        while len(labelled) > MOST_REQUESTS:
            labelled.pop(next(iter(labelled)))
        if not rows:
            return None, np.zeros(0, np.bool_)
        return torch.cat(rows), torch.cat(new).cpu().numpy()

    def _order_of(self, layer: Any) -> Any:
        cache = layer.kv_cache
        sizes = layer.num_kv_heads, layer.head_size, layer.head_size_v
        key = type(layer.impl), cache.shape[1:], cache.stride()[1:], cache.dtype, sizes
        if key not in self._orders:
            self._orders[key] = element_order(layer)
        return self._orders[key]


def element_order(layer: Any) -> Any:
    """Return where in a block of a layer's cache the numbers lie: [block size, keys and values of all heads].

    Kernels pack what they write in ways of their own. So the layer's own writer fills a block of a cache beside its
    own with numbers that tell which is where. Raises LookupError for a cache that does not hold each number as it is.
    """
    import torch

    cache, heads = layer.kv_cache, layer.num_kv_heads
    keys, values = heads * layer.head_size, heads * layer.head_size_v
    if not isinstance(cache, torch.Tensor) or cache.ndim < 2 or not len(cache):
        raise LookupError(f"a cache that is a {type(cache).__name__} is not known")
    if cache.dtype != layer.dtype:
        raise LookupError(f"{layer.dtype} is kept as {cache.dtype}, which is compared with nothing")
    size, rest = divmod(cache[0].numel(), keys + values)
    if rest or not size or not hasattr(layer.impl, "do_kv_cache_update"):
        raise LookupError(f"blocks of {list(cache.shape[1:])} by {type(layer.impl).__name__} are not known")
    numbers = torch.arange(1, size * (keys + values) + 1, device=cache.device).view(size, keys + values)
    slots = torch.arange(size, device=cache.device)
    found = torch.zeros(cache[0].numel(), dtype=torch.int64, device=cache.device)
    for digit in range(math.ceil(math.log(numbers.numel() + 1, _DIGIT))):
        written = (numbers // _DIGIT**digit % _DIGIT).to(cache.dtype)
        block = torch.zeros_like(cache[:1])
        key = written[:, :keys].reshape(size, heads, -1).contiguous()
        value = written[:, keys:].reshape(size, heads, -1).contiguous()
        layer.impl.do_kv_cache_update(layer, key, value, block, slots)
        found += block.flatten().round().to(torch.int64) * _DIGIT**digit
    sorted_numbers, order = found.sort()
    if not torch.equal(sorted_numbers, numbers.flatten()):
        raise LookupError(f"{type(layer.impl).__name__} does not write each number to one place of a block")
    return order.view(size, keys + values)


def _window_of(layer: Any) -> int:
    """Return how many tokens each one attends to, 0 for all: the blocks of those before may be given away."""
    return int(getattr(layer, "sliding_window", None) or 0)


def _places(contexts: Sequence[Context], table: Any, size: int, window: int, most: int) -> _Places:
    import torch

    numbers = table[: len(contexts)].cpu().numpy()
    blocks, used, requests, firsts = [], [], [], []
    for number, context in enumerate(contexts):
        end = len(context.tokens)
        begin = max(context.first - window + 1, 0) if window else 0
        of_request = np.arange(begin // size, -(-end // size))
        positions = of_request[:, None] * size + np.arange(size)
        blocks.append(numbers[number, of_request])
        used.append((positions >= begin) & (positions < end))
        requests.append(np.full(len(of_request), number, np.int32))
        firsts.append(of_request * size)
    ids = np.concatenate(blocks)
    if (wrong := ids[(ids < 0) | (ids >= most)]).size:
        raise LookupError(f"the table names block {wrong[0]} of {most}")
    return _Places(
        table,
        torch.from_numpy(ids.astype(np.int64)).to(table.device),
        torch.from_numpy(np.concatenate(used)).to(table.device),
        np.concatenate(requests),
        np.concatenate(firsts).astype(np.int32),
    )


def _names(contexts: Sequence[Context], at: _Places, found: npt.NDArray[np.bool_]) -> Rows:
    """Return the names of the rows that are labelled, with the blocks that hold them."""
    block, place = np.nonzero(found)
    request, position = at.requests[block], at.first[block] + place
    tokens = np.array([token for context in contexts for token in context.tokens])
    begins = np.cumsum([0, *(len(context.tokens) for context in contexts)])
    ids = at.blocks.cpu().numpy()[block].astype(np.int32)
    names = [contexts[number].request for number in request.tolist()]
    return Rows(names, position, tokens[begins[request] + position], blocks=ids)


def _hashes(rows: Any) -> Any:
    """Return a number for the bytes of each row; rows that differ have the same by chance once in 2^32 times."""
    import torch

    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = rows.contiguous().view(kinds[rows.element_size()]).to(torch.int64)
    return (bits * _factors(rows.shape[-1], rows.device)).sum(-1)


@cache
def _factors(width: int, device: Any) -> Any:
    """Return so many odd numbers, the same each time."""
    import torch

    return torch.randint(1 << 62, (width,), generator=torch.Generator().manual_seed(0)).to(device) * 2 + 1


def names_by_layer(names: Iterable[str]) -> dict[int, dict[str, str]]:
    """Return the labels of caches among some names, by the number of the layer and the last part of the name."""
    found: dict[int, dict[str, str]] = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        number = next((part for part in module.split(".") if part.isdecimal()), "")
        if kind in (KEYS, VALUES) and number:
            found.setdefault(int(number), {})[kind] = name
    return found

"""The keys and values that a paged cache holds, as rows of labels: what is new in it, or has changed, is labelled.

After each forward the context of its requests is read through the table of blocks that attention reads it through. A
row is labelled when it is first seen, also where a prefix was cached before, and again whenever its bytes are others.
So each row is recorded once in a run that is right, while reading takes what attention takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.api import record_at, skip_at
from aclcmp.labeling.engines.module_labels import say
from aclcmp.labeling.layout import Layout
from aclcmp.labeling.rows import Rows

KEYS, VALUES = "k_cache", "v_cache"
"""Last parts of the labels' names, behind that of the attention module."""
_SIDE = "acl"
_DIGIT = 128
"""Numbers below it are exact in every type that a cache has, but float8."""
_MOST_REQUESTS = 4096
"""Requests of which is kept what was labelled: 8 bytes for each token and layer."""
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


@dataclass(frozen=True, slots=True)
class Context:
    """The tokens of one request that are in the cache after a forward."""

    request: str
    """Its name outside of the engine."""
    tokens: Sequence[int]
    """By position; empty where not all are known, so that its rows have no names."""


class Texts:
    """The tokens of requests, by what is known of their prompts and by the rows that forwards computed."""

    def __init__(self) -> None:
        self._tokens: dict[str, list[int]] = {}
        self._told = False

    def contexts(
        self,
        requests: Sequence[str],
        starts: Sequence[int],
        positions: Sequence[int],
        tokens: Sequence[int],
        prompts: Mapping[str, Sequence[int]],
    ) -> list[Context]:
        """Return the context of each request of a forward: its rows are those from one of the starts to the next."""
        found = []
        for request, begin, end in zip(requests, starts, starts[1:], strict=False):
            prompt, first = list(prompts.get(request, ())), positions[begin] if end > begin else 0
            text = self._tokens.pop(request, prompt)
            if text[: len(prompt)] != prompt:  # another request of this name
                text = prompt
            if first > len(text) or list(positions[begin:end]) != list(range(first, first + end - begin)):
                if not self._told:
                    say(f"not all tokens of request {request!r} are known: its KV cache is not labelled")
                self._told = True
                found.append(Context(request, ()))
                continue
            text[first : first + end - begin] = tokens[begin:end]
            self._tokens[request] = text
            found.append(Context(request, text[: first + end - begin]))
        while len(self._tokens) > _MOST_REQUESTS:
            self._tokens.pop(next(iter(self._tokens)))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where the contexts of a forward lie in the caches of layers that share a table of blocks; n rows in b blocks."""

    blocks: Any
    """Tensor of the blocks' numbers, shape (b,)."""
    used: Any
    """Tensor of booleans, shape (b, block size): whether the place in the block holds a token of the request."""
    requests: npt.NDArray[np.int32]
    """Shape (b,): which context the block is of."""
    first: npt.NDArray[np.int32]
    """Shape (b,): position of the first token of the block."""


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
        rows: dict[object, Rows] = {}
        lost = []
        for point in self._points:
            try:
                self._label_layer(point, contexts, table_of(point.layer.layer_name), places, rows)
            except Exception as error:  # a label must not keep the engine from serving
                lost.append(point)
                for name in point.labels:
                    skip_at(point.site, _SIDE, name, f"its cache cannot be read: {type(error).__name__}: {error}")
        self._points = [point for point in self._points if point not in lost]

    def _label_layer(
        self,
        point: CachePoint,
        contexts: Sequence[Context],
        table: Any,
        places: dict[object, _Places],
        known_rows: dict[object, Rows],
    ) -> None:
        import torch

        layer, cache = point.layer, point.layer.kv_cache
        order = self._order_of(layer)
        window = _window_of(layer)
        key = id(table), len(order), window
        if key not in places:
            places[key] = _places(contexts, table, len(order), window, cache.shape[0])
        at = places[key]
        labelled = self._labelled[point.name]
        before = torch.zeros(at.used.shape, dtype=torch.int64, device=cache.device)
        seen = torch.zeros_like(at.used)
        ends = np.searchsorted(at.requests, np.arange(len(contexts) + 1))
        for context, begin, end in zip(contexts, ends, ends[1:], strict=False):
            hashes = labelled.get(context.request)
            if hashes is not None and end > begin:
                part = hashes[int(at.first[begin]) : int(at.first[begin]) + (end - begin) * len(order)]
                before[begin:end].view(-1)[: len(part)] = part
                seen[begin:end].view(-1)[: len(part)] = True
        rows, changed = [], []
        step = max(1, _MOST_BYTES // (8 * order.numel()))
        for begin in range(0, len(at.blocks), step):
            part = slice(begin, begin + step)
            content = cache[at.blocks[part]].flatten(1)[:, order]
            hashes = _hashes(content)
            new = at.used[part] & (~seen[part] | (hashes != before[part]))
            before[part] = hashes
            rows.append(content[new])
            changed.append(new)
        for context, begin, end in zip(contexts, ends, ends[1:], strict=False):
            labelled.pop(context.request, None)  # the last ones are those of late
            labelled[context.request] = _up_to(
                len(context.tokens), int(at.first[begin]) if end > begin else 0, before[begin:end]
            )
        while len(labelled) > _MOST_REQUESTS:
            labelled.pop(next(iter(labelled)))
        found = torch.cat(changed).cpu().numpy() if changed else np.zeros((0, len(order)), bool)
        if not found.any():
            return
        shared = id(at), found.tobytes()
        if shared not in known_rows:
            known_rows[shared] = _names(contexts, at, found)
        keys = layer.num_kv_heads * layer.head_size
        values = torch.cat(rows)
        with known_rows[shared]:
            record_at(point.site, _SIDE, point.labels[0], values[:, :keys], point.keys)
            record_at(point.site, _SIDE, point.labels[1], values[:, keys:], point.values)

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
    """Return how many of the last tokens a layer attends to, 0 for all: the blocks of others may be given away."""
    return int(getattr(layer, "sliding_window", None) or 0)


def _places(contexts: Sequence[Context], table: Any, size: int, window: int, most: int) -> _Places:
    import torch

    numbers = table[: len(contexts)].cpu().numpy()
    blocks, used, requests, firsts = [], [], [], []
    for number, context in enumerate(contexts):
        end = len(context.tokens)
        begin = max(end - window, 0) if window else 0
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
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(1 << 62, (rows.shape[-1],), generator=generator).to(rows.device) * 2 + 1
    return (bits * factors).sum(-1)


def _up_to(end: int, first: int, hashes: Any) -> Any:
    """Return hashes by position up to the end of a context, of which those before `first` are not known (0)."""
    import torch

    known = hashes.reshape(-1)[: end - first]
    return known if not first else torch.cat([torch.zeros(first, dtype=known.dtype, device=known.device), known])


def names_by_layer(names: Iterable[str]) -> dict[int, dict[str, str]]:
    """Return the labels of caches among some names, by the number of the layer and the last part of the name."""
    found: dict[int, dict[str, str]] = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        number = next((part for part in module.split(".") if part.isdecimal()), "")
        if kind in (KEYS, VALUES) and number:
            found.setdefault(int(number), {})[kind] = name
    return found

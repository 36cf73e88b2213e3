"""The tensors in what a module takes or returns, each with the end of its label's id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

Path = tuple["str | int", ...]

_CACHES = frozenset({"past_key_values", "past_key_value", "layer_past", "cache_params"})
_DEEPEST = 8  # a list may hold itself
_PLAIN = (type(None), str, bytes, int, float, complex)
"""What is no tensor and hides none."""


def tensors_in(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (end of the id, tensor): `""` for the only one and the first of a tuple, `".1"`, `".key"`, `".1.0"`.

    Tuples and lists count by place, mappings, named tuples and dataclasses go by key; of keys that read alike (1 and
    "1") the second is `".1~2"`. What is no tensor, and key-value caches, are passed over.
    """
    import torch

    times: dict[str, int] = {}
    tensors = ((path, leaf) for path, leaf in _leaves(value) if isinstance(leaf, torch.Tensor))
    for number, (path, tensor) in enumerate(tensors):
        first = number == 0 and all(isinstance(step, int) for step in path)
        end = "" if first else "".join(f".{step}" for step in path)
        times[end] = times.get(end, 0) + 1
        yield end if times[end] == 1 else f"{end}~{times[end]}", tensor


def unreadable(value: Any) -> Any:
    """Return the first thing in a value without tensors that may hide some (an object, a set, a generator), or None."""
    return next((leaf for _, leaf in _leaves(value) if not isinstance(leaf, _PLAIN)), None)


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What is no container of a known kind, with the way to it."""
    items = _items(value)
    if items is None:
        yield path, value
    elif len(path) < _DEEPEST:
        for key, item in items:
            if key not in _CACHES:
                yield from _leaves(item, (*path, key))


def _items(value: Any) -> Iterable[tuple[str | int, Any]] | None:
    """What a container holds, nothing for a cache, and None for what is neither."""
    if type(value).__name__.endswith("Cache"):
        return ()
    if isinstance(value, Mapping):
        return ((str(key), item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None)
        return zip(names, value, strict=False) if names else enumerate(value)
    if is_dataclass(value) and not isinstance(value, type):
        return ((field.name, getattr(value, field.name, None)) for field in fields(value))
    return None

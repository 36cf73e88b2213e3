"""The tensors inside the inputs or the output of a module, each with the ending of its label's id."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

Path = tuple["str | int", ...]

_CACHES = frozenset({"past_key_values", "past_key_value", "layer_past", "cache_params"})
_DEEPEST = 8  # a list may hold itself
_PLAIN = (type(None), str, bytes, int, float, complex)
"""Types that contain no tensors."""


def tensors_in(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (ending of the id, tensor): `""` for a single tensor and the first of a tuple, `".1"`, `".key"`, `".1.0"`.

    Items of tuples and lists are named by position, those of mappings, named tuples and dataclasses by key. Where two
    keys have the same text (1 and "1") the second is `".1~2"`. Key-value caches, and values that are no tensors, are
    skipped.
    """
    import torch

    counts: dict[str, int] = {}
    tensors = ((path, leaf) for path, leaf in _leaves(value) if isinstance(leaf, torch.Tensor))
    for number, (path, tensor) in enumerate(tensors):
        first = number == 0 and all(isinstance(step, int) for step in path)
        end = "" if first else "".join(f".{step}" for step in path)
        counts[end] = counts.get(end, 0) + 1
        yield end if counts[end] == 1 else f"{end}~{counts[end]}", tensor


def replace_tensors(value: Any, values: Mapping[str, Any]) -> Any:
    """Return a value with tensors of it replaced, by the endings that `tensors_in` gives them; it stays as it was."""
    places = {id(tensor): values[end] for end, tensor in tensors_in(value) if end in values}
    return _replaced(value, places)


def _replaced(value: Any, places: Mapping[int, Any], depth: int = 0) -> Any:
    items = _items(value)
    if items is None:
        return places.get(id(value), value)
    named = list(items) if depth < _DEEPEST else []
    new = [item if key in _CACHES else _replaced(item, places, depth + 1) for key, item in named]
    if all(item is old for item, (_, old) in zip(new, named, strict=True)):
        return value
    if isinstance(value, Mapping):
        mapping: Any = copy.copy(value)
        for key, item in zip(value, new, strict=True):
            mapping[key] = item
        return mapping
    if is_dataclass(value):
        changed = copy.copy(value)
        for (name, _), item in zip(named, new, strict=True):
            object.__setattr__(changed, str(name), item)  # it may be frozen
        return changed
    return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)


def opaque_leaf(value: Any) -> Any:
    """Return the first object inside `value` that may hide tensors (an object, a set, a generator), or None."""
    return next((leaf for _, leaf in _leaves(value) if not isinstance(leaf, _PLAIN)), None)


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each item that is no container of a known kind, with the path to it."""
    items = _items(value)
    if items is None:
        yield path, value
    elif len(path) < _DEEPEST:
        for key, item in items:
            if key not in _CACHES:
                yield from _leaves(item, (*path, key))


def _items(value: Any) -> Iterable[tuple[str | int, Any]] | None:
    """Return the items of a container, nothing for a key-value cache, and None for anything else."""
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

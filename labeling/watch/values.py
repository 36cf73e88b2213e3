"""The tensors in what a module takes or returns, each with the end of its label's id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

Path = tuple["str | int", ...]

_CACHES = frozenset({"past_key_values", "past_key_value", "layer_past", "cache_params"})
_DEEPEST = 8  # a list may hold itself


def tensors_in(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (end of the id, tensor): `""` for the only one and the first of a tuple, `".1"`, `".key"`, `".1.0"`.

    Tuples and lists count by place, mappings, named tuples and dataclasses go by key. What is no tensor, and key-value
    caches, are passed over.
    """
    import torch

    for number, (path, tensor) in enumerate(_leaves(value, (), torch.Tensor)):
        first = number == 0 and all(isinstance(step, int) for step in path)
        yield "" if first else "".join(f".{step}" for step in path), tensor


def _leaves(value: Any, path: Path, tensor_type: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, tensor_type):
        yield path, value
    elif len(path) < _DEEPEST and not type(value).__name__.endswith("Cache"):
        for key, item in _items(value):
            if key not in _CACHES:
                yield from _leaves(item, (*path, key), tensor_type)


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        return ((str(key), item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None)
        return zip(names, value, strict=False) if names else enumerate(value)
    if is_dataclass(value) and not isinstance(value, type):
        return ((field.name, getattr(value, field.name, None)) for field in fields(value))
    return ()

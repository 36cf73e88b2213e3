"""The tensors of what a user gives to be compared, by their names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aclcmp.orchestrator.errors import UsageError

_ONE = "tensor"
"""Name of a tensor that is given by itself."""
_NUMBERS = (bool, int, float, complex, np.generic)
_GIVE = "give two tensors, two dicts (or lists) of tensors, or two folders"


def tensors_of(value: Any, side: str) -> dict[str, Any] | Path:
    """Return the tensors of a tensor, dict or list by their names, those inside others joined by dots; or a folder.

    Values that are no tensors are in it too, so that they count as labels that failed; None is nothing. Raises
    UsageError for anything else, for two tensors of one name, and for a container within itself.
    """
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    if _is_tensor(value):
        return {_ONE: _as_array(value)}
    if not isinstance(value, (Mapping, list, tuple)):
        has_state = hasattr(value, "state_dict")
        words = "give its state_dict() or what it returned" if has_state else _GIVE
        raise UsageError(f"{side} is a {type(value).__name__}: {words}")
    found: dict[str, Any] = {}
    for name, tensor in _walk(value, "", side, ()):
        if name in found:
            raise UsageError(f"{side} has two tensors that are called {name!r}; rename one")
        found[name] = tensor
    return found


def kind_of(value: Any) -> str:
    """Return which kind of thing is compared: what can be compared with it is of the same kind."""
    if isinstance(value, (str, os.PathLike)):
        return "folder"
    return "tensor" if _is_tensor(value) else "container"


def check_kinds(golden: Any, actual: Any) -> None:
    """Raise UsageError where two things are of different kinds."""
    if kind_of(golden) != kind_of(actual):
        raise UsageError(f"golden is a {type(golden).__name__} and actual a {type(actual).__name__}: {_GIVE}")


def _walk(value: Any, prefix: str, side: str, outer: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    if value is None:
        return
    if not isinstance(value, (Mapping, list, tuple)):
        yield prefix, _as_array(value)
        return
    if id(value) in outer:
        raise UsageError(f"{side} has a container within itself, {prefix}; give a dict of tensors")
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _walk(inner, f"{prefix}.{key}" if prefix else str(key), side, (*outer, id(value)))


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return isinstance(value, (np.ndarray, *_NUMBERS)) or (torch is not None and isinstance(value, torch.Tensor))


def _as_array(value: Any) -> Any:
    """Return a number as an array; anything else as it is."""
    return np.asarray(value) if isinstance(value, _NUMBERS) else value

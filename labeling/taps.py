"""Labels in compiled code: an operator of our own in the graph, which labels what passes when the graph runs.

Hooks are traced into the graph, and what they did in Python is gone when it runs. The operator stays: it returns a copy
of its input, which the graph then uses, so that it is neither dropped nor merged with another. Measured with torch
2.13: no graph breaks, `fullgraph=True` and inductor included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

_SINGLE = "single"
_labellers: WeakValueDictionary[str, Callable[[Any], Any]] = WeakValueDictionary()
_numbers = itertools.count()


_running: list[None] = []


def in_compiled_code() -> bool:
    """Tell whether a label is set from compiled code, which goes on with its own values."""
    return bool(_running)


def define_tap(name: str, label: Callable[[Any], Any]) -> str:
    """Return the key of a new tap, and label with `label` what passes it: a tensor, or a tuple of tensors.

    `label` must not raise. When its owner, a hook, is gone, the operators that are still in graphs label nothing.
    """
    key = f"{name} #{next(_numbers)}"
    _labellers[key] = label
    return key


def _label(values: Sequence[Any], place: str) -> None:
    key, _, places = place.rpartition("|")
    label = _labellers.get(key)
    if label is not None:
        _running.append(None)
        try:
            label(values[0] if places == _SINGLE else _together(dict(zip(places.split(","), values, strict=False))))
        finally:
            _running.pop()


def _together(values: dict[str, Any]) -> Any:
    """Return tensors as the tuple in which they had these places; those of a named tuple by name."""
    if not all(place.isdecimal() for place in values):
        return values
    by_place = {int(place): tensor for place, tensor in values.items()}
    return tuple(by_place.get(number) for number in range(max(by_place, default=-1) + 1))


@cache
def tap_operator() -> Any | None:
    """Return the operator `(tensor, values, key) -> copy of tensor`; None where this torch has no such operators."""
    import torch

    if not hasattr(torch.library, "custom_op"):
        return None

    def tap(tensor: torch.Tensor, values: list[torch.Tensor], key: str) -> torch.Tensor:
        _label(values, key)
        return tensor.clone()

    def fake(tensor: torch.Tensor, values: list[torch.Tensor], key: str) -> torch.Tensor:
        return torch.empty_like(tensor)

    # torch reads the types of the parameters, which are text in this file
    types = {"tensor": torch.Tensor, "values": list[torch.Tensor], "key": str, "return": torch.Tensor}
    tap.__annotations__ = types
    operator = torch.library.custom_op("aclcmp::tap", tap, mutates_args=())
    operator.register_fake(fake)
    return torch.ops.aclcmp.tap


@cache
def tap_passer() -> Callable[[Any, str], Any] | None:
    """Return `pass_tap(value, key)`, which puts the operator into the graph that is traced; None as `tap_operator`.

    It returns the value that the graph goes on with; None where no tap is possible. One is, without gradients, where
    `value` is a tensor, or a tuple or list that begins with one: of those the tensors are labelled.
    """
    import torch

    operator = tap_operator()
    if operator is None:
        return None

    def pass_tap(value: Any, key: str) -> Any:
        if torch.is_grad_enabled():  # the operator has no gradient, and dynamo warns where it looks at such tensors
            return None
        if isinstance(value, torch.Tensor):
            return operator(value, [value], f"{key}|{_SINGLE}")
        if isinstance(value, (tuple, list)) and len(value) and isinstance(value[0], torch.Tensor):
            places = [place for place in range(len(value)) if isinstance(value[place], torch.Tensor)]
            tensors = [value[place] for place in places]
            fields = getattr(value, "_fields", ())  # of a named tuple
            names = [fields[place] if fields else str(place) for place in places]
            first = operator(value[0], tensors, f"{key}|{','.join(names)}")
            rest = list(value)[1:]
            if isinstance(value, list):
                return [first, *rest]
            return type(value)(first, *rest) if fields else (first, *rest)
        return None

    return pass_tap

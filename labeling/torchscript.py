"""Substitutes of the public calls for code that torch.jit.script compiles: there nothing is recorded.

TorchScript reads the source and the annotations of these functions, so they use only what it supports.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable
from typing import Any


def substitute(function: Any, replacement: Callable[..., Any], note: Callable[[], None]) -> None:
    """Make torch.jit.script compile `replacement` instead of `function`, and call `note` when it does."""

    def prepare() -> Callable[..., Any]:
        note()
        return replacement

    function.__prepare_scriptable__ = prepare


def set_label(
    data_src: str,
    data_id: str,
    data_val: Any = None,
    tensor_path: str | None = None,
    layout: Any = None,
    level: str = "",
    inputs: list[str] | None = None,
    task: int | None = None,
    rows: Any = None,
) -> None:
    """Record nothing."""


def set_task_id(number: int | None = None) -> None:
    """Start nothing."""


def gen_id() -> str:
    """Return the same id for every call."""
    return "data_scripted"


def perturb(tensor):
    """Return the tensor. TorchScript takes a parameter without annotation for a tensor."""
    return tensor

"""What stands for the public calls in code that torch.jit.script compiles: nothing is recorded there.

TorchScript reads the source and the annotations of these functions, so they are written in what it knows.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable
from typing import Any


def stand_in(function: Any, instead: Callable[..., Any], note: Callable[[], None]) -> None:
    """Have torch.jit.script compile another function in a function's place, and call `note` when it does."""

    def prepared() -> Callable[..., Any]:
        note()
        return instead

    function.__prepare_scriptable__ = prepared


def set_label(
    data_src: str,
    data_id: str,
    data_val: Any = None,
    tensor_path: str | None = None,
    layout: Any = None,
    level: str = "",
    inputs: list[str] | None = None,
) -> None:
    """Record nothing."""


def set_task_id() -> None:
    """Start nothing."""


def gen_id() -> str:
    """Return the same id always."""
    return "data_scripted"


def perturb(tensor):
    """Return the tensor; what is not annotated is one."""
    return tensor

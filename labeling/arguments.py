"""Checks of a label's arguments. They raise LabelError, which says what to give instead."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.shard.record import LEVELS, REFERENCE, SIDE_NAMES

_MAX_ID = 1024
_MOST_INPUTS = 1024
_MOST_TASKS = 1 << 31
_MOST_INPUT_CHARACTERS = 1 << 14
"""Of all inputs of a label together: the table of a sealed shard reserves the longest list for every label."""


def check_side(data_src: Any) -> str:
    """Return a side as it is stored, one of SIDES. Raises LabelError."""
    if not isinstance(data_src, str) or data_src not in SIDE_NAMES:
        raise LabelError(
            f"data_src={_safe_repr(data_src)} is not a side; use 'pta' (golden), 'acl' (actual) or 'ref' (reference)"
        )
    return SIDE_NAMES[data_src]


def check_id(data_id: Any, what: str = "data_id") -> str:
    """Return an id if it can name a label; the error calls it `what`. Raises LabelError."""
    if not isinstance(data_id, str) or not data_id:
        raise LabelError(f"{what} must be a non-empty string, not {_safe_repr(data_id)}")
    if (not data_id.isascii() and data_id != plain_id(data_id)) or len(data_id) > _MAX_ID or "\0" in data_id:
        raise LabelError(f"{what} must be plain text of at most {_MAX_ID} characters")
    return data_id


def check_inputs(inputs: Any) -> tuple[str, ...]:
    """Return the ids of the labels from which a label was computed; () for None. Raises LabelError."""
    if inputs is None:
        return ()
    if isinstance(inputs, str):
        raise LabelError(
            f"inputs={_safe_repr(inputs)} is one string; give a list of ids: inputs=[{_safe_repr(inputs)}]"
        )
    if not isinstance(inputs, Sequence) or isinstance(inputs, (bytes, bytearray, memoryview)):
        raise LabelError(f"inputs is a {type(inputs).__name__}; give a list of the ids of the labels it was made from")
    ids = tuple(check_id(each, "each of inputs") for each in inputs[:_MOST_INPUTS])
    if len(inputs) > _MOST_INPUTS or sum(map(len, ids)) > _MOST_INPUT_CHARACTERS:
        raise LabelError(
            f"inputs are {len(inputs):,} ids; give at most {_MOST_INPUTS:,} with together {_MOST_INPUT_CHARACTERS:,} "
            "characters, or label a tensor that combines them and name that"
        )
    return ids


def check_task(number: Any) -> int:
    """Return the number of a task, 0 <= number < 2^31. Raises LabelError."""
    try:
        task = operator.index(number)
    except Exception:  # whatever an object of the user's raises
        task = -1
    if not 0 <= task < _MOST_TASKS or isinstance(number, bool):
        raise LabelError(f"{_safe_repr(number)} is not the number of a task; give an integer of 0 or more")
    return task


def check_values(side: str, data_val: Any, tensor_path: Any, level: Any) -> None:
    """Check that the side has its value or file, and that the level is known. Raises LabelError."""
    if data_val is None and not tensor_path:
        raise LabelError("neither data_val nor tensor_path was given")
    if data_val is None and side == "pta":
        raise LabelError("the golden side needs data_val; tensor_path belongs to the acl side")
    if tensor_path and side == REFERENCE:
        raise LabelError("the reference needs data_val and takes no tensor_path; that belongs to the acl side")
    if level not in ("", *LEVELS):
        raise LabelError(f"level={_safe_repr(level)} is not known; use 'op', 'layer' or 'model'")


def _safe_repr(value: object) -> str:
    """Return the repr of a value for a message; the name of its type where repr fails."""
    try:
        return repr(value)[:200]
    except Exception:
        return f"a {type(value).__name__}"


def plain_id(data_id: Any) -> str:
    """Return an id that every file can hold, also for a label whose own id is impossible."""
    name = data_id if isinstance(data_id, str) and data_id else _safe_repr(data_id)
    return name.encode("utf-8", "replace").decode().replace("\0", "?")[:_MAX_ID]

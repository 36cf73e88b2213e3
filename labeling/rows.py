"""Names of rows: which token each row of the labels in a forward is, by request, position and token id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.errors import LabelError

NO_TOKEN = -1
"""Token id of a row of which none was told."""
PADDING = -1
"""Request number of a row that stands for no token."""
_MOST = 2**31
_MAX_NAME = 256


@dataclass(frozen=True, slots=True, eq=False)
class NamedRows:
    """Names of the rows of one forward."""

    requests: tuple[str, ...]
    """Names of the requests, each once."""
    table: npt.NDArray[np.int32]
    """Shape (n, 3), or (B, T, 3) for a padded batch: number of the request in `requests` (PADDING for none), position
    in it, token id (NO_TOKEN where none was told)."""
    prompts: Mapping[str, Sequence[int]]
    """Tokens of requests, from their first on, that an engine knows though it may not compute all of them."""
    blocks: npt.NDArray[np.int32] | None = None
    """Shape (n,): the block of an engine's cache that holds each row; None where they come from no cache."""


class Rows:
    """Context in which labels refer to the rows of one forward; or the `rows` of a single `set_label`."""

    def __init__(
        self,
        requests: Any,
        positions: Any,
        token_ids: Any,
        mask: Any = None,
        prompts: Mapping[str, Sequence[int]] | None = None,
        blocks: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """Copy the names. What is wrong about them becomes the reason why the labels fail that refer to them."""
        self._entered: list[Token[Rows | None]] = []
        self._named: NamedRows | LabelError
        try:
            self._named = replace(name_rows(requests, positions, token_ids, mask, prompts or {}), blocks=blocks)
        except LabelError as error:
            self._named = error
        except Exception as error:  # a tensor that cannot be copied must not break the model
            self._named = LabelError(f"rows cannot be read: {type(error).__name__}: {error}")

    @property
    def named(self) -> NamedRows:
        """The names. Raises LabelError where they are impossible."""
        if isinstance(self._named, LabelError):
            raise self._named
        return self._named

    def __enter__(self) -> Rows:
        self._entered.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._entered.pop())


_current: ContextVar[Rows | None] = ContextVar("aclcmp_rows", default=None)


def current_rows() -> Rows | None:
    """Return the rows of the innermost context, None outside."""
    return _current.get()


def name_rows(
    requests: Any, positions: Any, token_ids: Any, mask: Any, prompts: Mapping[str, Sequence[int]]
) -> NamedRows:
    """Return the names of rows from what `aclcmp.rows` was given. Raises LabelError where that is impossible."""
    if mask is not None:
        return _name_batch(requests, positions, token_ids, mask)
    if positions is None:
        raise LabelError("rows need positions (one for each row), or mask=attention_mask for a padded batch")
    at = _numbers(positions, "positions")
    if at.ndim == 2 and at.shape[0] == 1:
        at = at[0]
    if at.ndim != 1:
        raise LabelError(f"positions have the shape {list(at.shape)}; give one position for each row")
    names = [requests] * at.size if requests is None or isinstance(requests, (str, int)) else _as_list(requests)
    if len(names) != at.size:
        raise LabelError(f"{len(names):,} requests are given for {at.size:,} positions; give one for each row")
    numbers: dict[str, int] = {}
    of_row = [numbers.setdefault(_name(name), len(numbers)) for name in names]
    return NamedRows(tuple(numbers), _table(np.array(of_row, np.int32), at, _tokens(token_ids, at.shape)), prompts)


def _name_batch(requests: Any, positions: Any, token_ids: Any, mask: Any) -> NamedRows:
    """Name the rows of a padded batch; `mask` of shape (B, T) is not zero where there is a token."""
    valid = np.asarray(_host(mask)) != 0
    if valid.ndim != 2:
        raise LabelError(f"mask has the shape {list(valid.shape)}; give an attention mask of [batch, tokens]")
    names = list(range(len(valid))) if requests is None else _as_list(requests)
    if len(names) != len(valid) or len(set(map(_name, names))) != len(names):
        raise LabelError(f"{len(names):,} requests are given for a batch of {len(valid):,}; give a name for each")
    counted = np.cumsum(valid, axis=1) - 1 if positions is None else _numbers(positions, "positions")
    at = np.broadcast_to(counted, valid.shape)
    of_row = np.where(valid, np.arange(len(valid))[:, None], PADDING)
    table = _table(of_row, np.where(valid, at, 0), _tokens(token_ids, valid.shape))
    return NamedRows(tuple(map(_name, names)), table, {})


def _table(requests: npt.NDArray[Any], positions: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.stack([requests, positions, tokens], axis=-1).astype(np.int32)


def _tokens(token_ids: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if token_ids is None:
        return np.full(shape, NO_TOKEN)
    tokens = _numbers(token_ids, "token_ids")
    if tokens.size != np.prod(shape, dtype=int):
        raise LabelError(f"{tokens.size:,} token ids are given for rows of {list(shape)}; give one for each row")
    return tokens.reshape(shape)


def _numbers(values: Any, what: str) -> npt.NDArray[Any]:
    """Return integers from 0 to 2^31 - 1. Raises LabelError for other values."""
    numbers = np.asarray(_host(values))
    if numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= _MOST):
        raise LabelError(f"{what} must be integers from 0 to 2^31 - 1")
    return numbers


def _host(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def _as_list(names: Any) -> list[Any]:
    if not isinstance(names, Sequence) or isinstance(names, bytes):
        names = np.asarray(_host(names)).tolist()
    if not isinstance(names, (list, tuple)):
        raise LabelError("requests must be a name, or a list of names")
    return list(names)


def _name(name: Any) -> str:
    text = "" if name is None else name if isinstance(name, str) else str(name)
    if not isinstance(name, (str, int)) and name is not None:
        raise LabelError(f"a request is named by a {type(name).__name__}; give a text or a number")
    return text.encode("utf-8", "replace").decode().replace("\0", "?")[:_MAX_NAME]

"""Hooks that label what the modules of an engine's model take and return, in forwards whose rows are named.

The plug-ins of all engines share them; each says which points its models have, and which rows a forward computes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

from aclcmp.labeling.api import record_at, skip_at
from aclcmp.labeling.engines.points import Point
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.rows import Rows, current_rows
from aclcmp.labeling.taps import define_tap, tap_passer

_SIDE = "acl"
_labelled: set[str] = set()
"""Names of the points that the forward under way has labelled."""


def wanted_points(points: Iterable[Point]) -> list[Point]:
    """Return the points of which `--labels` selects a label: the other modules run without hooks."""
    try:
        selection = LabelFilter.from_environment()
    except LabelError:  # the recorder says so, and records all
        selection = LabelFilter()
    return [point for point in points if any(map(selection.selects, (*point.labels, _input_name(point))))]


def watch_points(points: Iterable[Point]) -> None:
    """Hook the modules of all points, for eager and for compiled code."""
    for point in points:
        point.module.register_forward_hook(_hook(point.name, partial(label_output, point)))
        if point.input_layout is not None:
            point.module.register_forward_pre_hook(_hook(f"{point.name} input", partial(_label_input, point)))


def _input_name(point: Point) -> str:
    return f"{point.name}.input"


class ForwardWatch:
    """Context of each forward whose rows are named: of what ran in it without a label it tells once."""

    def __init__(self, points: Sequence[Point], graphs: str) -> None:
        """`graphs` says how the model is compiled or captured, "" where it is neither."""
        self._points, self._graphs = points, graphs
        self._told: set[str] = set()

    def __enter__(self) -> None:
        _labelled.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        silent = [point for point in self._points if point.name not in _labelled and point.name not in self._told]
        if not silent or error is not None:
            return
        self._told.update(point.name for point in silent)
        if not self._graphs:
            names = ", ".join(point.name for point in silent[:4])
            say(f"{len(silent)} modules were not called and have no labels: {names}{' ...' * (len(silent) > 4)}")
            return
        reason = (
            f"it ran in a graph ({self._graphs}), whose replay labels nothing: start the engine with --enforce-eager"
        )
        for point in silent:
            for name in point.labels:
                skip_at(point.site, _SIDE, name, reason)


class LastForward:
    """The rows of the last forward: those of its logits are the last ones of each request."""

    def __init__(self, site: str) -> None:
        """`site` is the call site of the labels of logits."""
        self._site = site
        self.requests: list[str] = []
        self.positions: list[int] = []
        self.tokens: list[int] = []

    def label_logits(self, logits: Any) -> None:
        """Label logits that have a row for each request of the last forward; once for each forward."""
        requests, self.requests = self.requests, []
        if logits is None or not requests or len(logits) != len(requests):
            return
        with Rows(requests, self.positions, self.tokens):
            record_at(self._site, _SIDE, "lm_head", logits)


def row_numbers(buffer: Any, count: int) -> list[int]:
    """Return the first `count` numbers of a buffer that has one for each row."""
    tensor = getattr(buffer, "gpu", buffer)
    tensor = tensor[0] if tensor.ndim == 2 else tensor  # multimodal positions: the temporal ones
    numbers: list[int] = tensor[:count].tolist()
    return numbers


def _hook(name: str, label: Callable[[Any], None]) -> Callable[..., Any]:
    """Return a hook that labels the output of a module, or as a hook before it its arguments."""
    import torch

    pass_tap, is_compiling, key = tap_passer(), torch.compiler.is_compiling, define_tap(name, label)

    def hook(_module: Any, *passed: Any) -> Any:
        if is_compiling():
            return None if pass_tap is None else pass_tap(passed[-1], key)
        label(passed[-1])
        return None

    return hook


def label_output(point: Point, output: Any) -> None:
    """Label what a module returned in a forward whose rows are named; dummy runs and warm-ups have no names."""
    if current_rows() is None:
        return
    _labelled.add(point.name)
    try:
        for name, tensor, layout in _tensors(point, output):
            record_at(point.site, _SIDE, name, tensor[: _row_count()], layout)
    except Exception as error:  # a label must not keep the engine from serving
        reason = f"{type(output).__name__} is no output that is known of this module ({type(error).__name__}: {error})"
        for name in point.labels:
            skip_at(point.site, _SIDE, name, reason)


def _label_input(point: Point, args: Any) -> None:
    if current_rows() is None:
        return
    name = _input_name(point)
    try:
        record_at(point.site, _SIDE, name, args[0][: _row_count()], point.input_layout)
    except Exception as error:
        skip_at(point.site, _SIDE, name, f"the input is no tensor ({type(error).__name__}: {error})")


def _row_count() -> int:
    """Return the number of rows of the forward: behind them the engine may have padded the batch."""
    rows = current_rows()
    return 0 if rows is None else len(rows.named.table)


def _tensors(point: Point, output: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, tensor, layout) of what a module returned, under the names of the original."""
    if point.residual and isinstance(output, tuple) and len(output) == 2 and output[1] is not None:
        yield point.name, output[0] + output[1], point.layout
        return
    first = output[0] if isinstance(output, tuple) else output
    if not point.parts:
        first = first.flatten(1) if point.heads else first
        yield point.name, first if point.scale is None else first * point.scale, point.layout
        return
    for (name, _, layout), tensor in zip(
        point.parts, first.split([size for _, size, _ in point.parts], dim=-1), strict=True
    ):
        yield name, tensor, layout


def say(text: str) -> None:
    """Tell the user one line."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"aclcmp: {text}\n")

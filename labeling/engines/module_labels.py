"""Hooks that label what the modules of an engine's model take and return, in forwards whose rows are named.

The plug-ins of all engines share them; each says which points its models have, and which rows a forward computes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from aclcmp.labeling.api import label_replays_at, record_at, skip_at
from aclcmp.labeling.device_graphs import (
    in_capture,
    is_in_graph,
    record_replays,
    replays_until_end,
    see_device_graphs,
)
from aclcmp.labeling.engines.points import Point
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.golden_values.substitution import fail_in_graph, label_and_replace, substitution
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.rows import Rows, current_rows
from aclcmp.labeling.taps import define_tap, tap_passer

_SIDE = "acl"
_labelled: set[str] = set()
"""Labels of the forward under way."""


def wanted_points(points: Iterable[Point]) -> list[Point]:
    """Return the points of which `--labels` selects a label, ready to record: the other modules run without hooks.

    Where values are golden's all points count.
    """
    if substitution() is not None:
        return [point.with_layouts() for point in points]
    selects = label_selection()
    wanted = (point for point in points if any(map(selects, (*point.labels, _input_name(point)))))
    return [point.with_layouts() for point in wanted]


def label_selection() -> Callable[[str], bool]:
    """Return what tells the labels that `--labels` selects."""
    try:
        return LabelFilter.from_environment().selects
    except LabelError:  # the recorder says so, and records all
        return LabelFilter().selects


def watch_points(points: Iterable[Point]) -> None:
    """Hook the modules of all points, for eager, compiled and captured code."""
    see_device_graphs()
    for point in points:
        point.module.register_forward_hook(_hook(point.name, partial(label_output, point)))
        if point.input_layout is not None:
            point.module.register_forward_pre_hook(_hook(f"{point.name} input", partial(_label_input, point)))


def _input_name(point: Point) -> str:
    return f"{point.name}.input"


@contextmanager
def collect_labels() -> Iterator[set[str]]:
    """Yield the names of what the forward inside labels; they are complete at its end, when replays are recorded."""
    _labelled.clear()
    with replays_until_end():
        yield _labelled


class ForwardWatch:
    """The forwards whose rows are named: of what runs in them without a label it tells once."""

    def __init__(self, points: Sequence[Point], graphs: str) -> None:
        """`graphs` says how the model is compiled or captured, "" where it is neither."""
        self._points, self._graphs = points, graphs
        self._told: set[str] = set()

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Watch the forward inside."""
        with collect_labels() as labelled:
            yield
        silent = [point for point in self._points if labelled.isdisjoint(point.labels) and point.name not in self._told]
        if not silent:
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
        self.prompts: Mapping[str, Sequence[int]] = {}

    def label_logits(self, logits: Any) -> Any:
        """Label logits that have a row for each request of the last forward; once for each forward.

        Return those to sample from: where values are golden's, the tokens are those of the golden run too.
        """
        requests, self.requests = self.requests, []
        if logits is None or not requests or len(logits) != len(requests):
            return logits
        with Rows(requests, self.positions, self.tokens):
            value = label_and_replace(self._site, _SIDE, "lm_head", logits)
        golden = substitution()
        if golden is None:
            return logits
        chosen = (logits if value is None else value).clone()
        for row, token in enumerate(golden.next_tokens(requests, self.positions, self.tokens, self.prompts)):
            if token is not None:
                chosen[row] = -math.inf
                chosen[row, token] = 0.0
        return chosen


def row_numbers(buffer: Any, count: int) -> list[int]:
    """Return the first `count` numbers of a buffer that has one for each row."""
    tensor = getattr(buffer, "gpu", buffer)
    tensor = tensor[0] if tensor.ndim == 2 else tensor  # multimodal positions: the temporal ones
    numbers: list[int] = tensor[:count].tolist()
    return numbers


def _hook(name: str, label: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a hook that labels the output of a module, or as a hook before it its arguments.

    In eager code it returns what `label` puts in their place.
    """
    import torch

    pass_tap, is_compiling, key = tap_passer(), torch.compiler.is_compiling, define_tap(name, label)

    def hook(_module: Any, *passed: Any) -> Any:
        if is_compiling():
            return None if pass_tap is None else pass_tap(passed[-1], key)
        return label(passed[-1])

    return hook


def is_forward_labelled() -> bool:
    """Tell whether rows are named, as they are not in dummy runs and warm-ups, or a graph is captured for such rows."""
    return current_rows() is not None or in_capture()


def label_output(point: Point, output: Any) -> Any:
    """Label what a module returned in a forward that is labelled; return what replaces it, None where nothing does."""
    if not is_forward_labelled():
        return None
    try:
        found = [(tensor, _label(point.site, name, layout, tensor)) for name, tensor, layout in _tensors(point, output)]
        return None if all(value is None for _, value in found) else _as_output(point, output, found)
    except Exception as error:  # a label must not keep the engine from serving
        reason = f"{type(output).__name__} is no output that is known of this module ({type(error).__name__}: {error})"
        _labelled.update(point.labels)
        for name in point.labels:
            skip_at(point.site, _SIDE, name, reason)
        return None


def _label_input(point: Point, args: Any) -> Any:
    if not is_forward_labelled():
        return None
    name = _input_name(point)
    try:
        value = _label(point.site, name, point.input_layout, args[0])
        return None if value is None else (value, *args[1:])
    except Exception as error:
        skip_at(point.site, _SIDE, name, f"the input is no tensor ({type(error).__name__}: {error})")
        return None


def _label(site: str, name: str, layout: Any, tensor: Any) -> Any:
    """Label the rows of a tensor, now or after each replay of the graph that is captured; return what replaces it."""
    tensor.shape[0]  # raises for what has no rows, here and not after a replay
    if is_in_graph(tensor):
        if not fail_in_graph(site, _SIDE, name):
            label_replays_at(site, _SIDE, name, tensor, partial(_record_rows, site, name, layout))
        return None
    record_replays()  # they were before this one
    return _record_rows(site, name, layout, tensor, label_and_replace)


def _record_rows(site: str, name: str, layout: Any, tensor: Any, record: Callable[..., Any] = record_at) -> Any:
    """Record the rows of the forward: behind them the engine may have padded the batch."""
    rows = current_rows()
    if rows is None:
        return None
    _labelled.add(name)
    count = len(tensor)
    with suppress(LabelError):  # impossible names, for which the label fails
        count = len(rows.named.table)
    value = record(site, _SIDE, name, tensor[:count] if count < len(tensor) else tensor, layout)
    if value is None or count >= len(tensor):
        return value
    whole = tensor.clone()
    whole[:count] = value
    return whole


def _as_output(point: Point, output: Any, found: Sequence[tuple[Any, Any]]) -> Any:
    """Return a module's output with values in the place of tensors, some of which may stay (None)."""
    import torch

    values = [tensor if value is None else value for tensor, value in found]
    if point.residual and isinstance(output, tuple) and len(output) == 2 and output[1] is not None:
        return torch.zeros_like(output[0]), values[0]
    value = torch.cat(values, dim=-1) if point.parts else values[0]
    first = output[0] if isinstance(output, tuple) else output
    value = (value if point.scale is None else value / point.scale).reshape(first.shape).to(first.dtype)
    return (value, *output[1:]) if isinstance(output, tuple) else value


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

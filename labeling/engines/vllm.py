"""Plug-in of vLLM: in each worker it labels what the model's modules return, with the rows of each forward named.

vLLM calls `register` in all of its processes (entry point group `vllm.general_plugins`). It returns at once unless the
launcher's environment is set. The labels have the names that transformers gives the same tensors.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from aclcmp.labeling.api import is_on, record_at
from aclcmp.labeling.engines.vllm_points import Point, points_of
from aclcmp.labeling.rows import Rows, current_rows
from aclcmp.labeling.taps import define_tap, tap_passer

_SIDE = "acl"
_MARK = "_aclcmp_watches"


def register() -> None:
    """Let each worker watch its model as soon as that is loaded."""
    if not is_on():
        return
    try:
        from vllm.v1.worker.gpu_worker import Worker
    except ImportError as error:
        _say(f"this version of vLLM has no worker that is known ({error}): nothing of it is labelled")
        return
    if getattr(Worker, _MARK, False):  # the function runs several times in one process
        return
    setattr(Worker, _MARK, True)
    os.environ["VLLM_DISABLE_COMPILE_CACHE"] = "1"  # a graph from the cache has no taps
    load_model = Worker.load_model

    @functools.wraps(load_model)
    def load_and_watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load_model(self, *args, **kwargs)
        try:
            _watch(self.model_runner, self.model_runner.get_model())
        except Exception as error:  # a label must not keep the engine from serving
            _say(f"the model is not watched: {type(error).__name__}: {error}")
        return result

    Worker.load_model = load_and_watch


def _watch(runner: Any, model: Any) -> None:
    """Wrap the forward of a runner, and hook the modules of its model."""
    forward, logits = getattr(runner, "_model_forward", None), getattr(model, "compute_logits", None)
    if forward is None:
        _say(f"{type(runner).__name__} has no _model_forward: this version of vLLM is not known, nothing is labelled")
        return
    import torch

    last, pass_tap = _LastForward(), tap_passer()

    @functools.wraps(forward)
    def forward_with_rows(*args: Any, **kwargs: Any) -> Any:
        with _rows_of_batch(runner, last):
            return forward(*args, **kwargs)

    runner._model_forward = forward_with_rows  # dummy and profile runs call the model itself
    points = 0
    for point in points_of(model):
        points += 1
        define_tap(point.key, partial(_label, point))
        point.module.register_forward_hook(_hook(point, torch.compiler.is_compiling, pass_tap))
        if point.input_layout is not None:
            define_tap(f"{point.key} input", partial(_label_input, point))
            point.module.register_forward_pre_hook(_input_hook(point, torch.compiler.is_compiling, pass_tap))
    if logits is not None:

        @functools.wraps(logits)
        def compute_and_label(*args: Any, **kwargs: Any) -> Any:
            found = logits(*args, **kwargs)
            last.label_logits(found)
            return found

        model.compute_logits = compute_and_label
    if points == 0:
        _say(f"no module of {type(model).__name__} is known: nothing is labelled")


class _LastForward:
    """The rows of the last forward: those of its logits are the last ones of each request."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.positions: list[int] = []
        self.tokens: list[int] = []

    def label_logits(self, logits: Any) -> None:
        """Label logits that have a row for each request of the last forward; once for each forward."""
        requests, self.requests = self.requests, []
        if logits is None or not requests or len(logits) != len(requests):
            return
        with Rows(requests, self.positions, self.tokens):
            record_at("vllm:compute_logits", _SIDE, "lm_head", logits)


def _rows_of_batch(runner: Any, last: _LastForward) -> Rows:
    """Return the names of the rows that the runner is about to compute."""
    batch = runner.input_batch
    number = batch.num_reqs
    starts = runner.query_start_loc.np[: number + 1].tolist()
    names = [_external_name(name) for name in batch.req_ids[:number]]
    requests = [name for name, begin, end in zip(names, starts, starts[1:], strict=False) for _ in range(end - begin)]
    count = starts[-1]
    positions = _flat(runner.positions, count)
    tokens = _flat(runner.input_ids, count)
    last.requests = names
    last.positions = [positions[end - 1] for end in starts[1:]]
    last.tokens = [tokens[end - 1] for end in starts[1:]]
    prompts = {name: _prompt(runner, full) for name, full in zip(names, batch.req_ids[:number], strict=True)}
    return Rows(requests, positions, tokens, prompts=prompts)


def _prompt(runner: Any, request: str) -> list[int]:
    """Return the tokens of a request's prompt: of what the prefix cache holds no row is computed."""
    state = getattr(runner, "requests", {}).get(request)
    return list(getattr(state, "prompt_token_ids", None) or ())


def _external_name(name: str) -> str:
    """Return the request's name outside of the engine, which appends 8 hexadecimal digits."""
    head, dash, tail = name.rpartition("-")
    return head if dash and len(tail) == 8 and all(digit in "0123456789abcdef" for digit in tail) else name


def _flat(buffer: Any, count: int) -> list[int]:
    tensor = getattr(buffer, "gpu", buffer)
    tensor = tensor[0] if tensor.ndim == 2 else tensor  # multimodal positions: the temporal ones
    numbers: list[int] = tensor[:count].tolist()
    return numbers


def _hook(point: Point, is_compiling: Callable[[], bool], pass_tap: Any) -> Callable[..., Any]:
    key = point.key

    def after(_module: Any, _args: Any, output: Any) -> Any:
        if is_compiling():
            return None if pass_tap is None else pass_tap(output, key)
        _label(point, output)
        return None

    return after


def _input_hook(point: Point, is_compiling: Callable[[], bool], pass_tap: Any) -> Callable[..., Any]:
    key = f"{point.key} input"

    def before(_module: Any, args: Any) -> Any:
        if is_compiling():
            return None if pass_tap is None else pass_tap(args, key)
        _label_input(point, args)
        return None

    return before


def _label(point: Point, output: Any) -> None:
    """Label what a module returned in a forward whose rows are named; dummy runs and warm-ups have no names."""
    if current_rows() is not None:
        with suppress(Exception):  # a module that returns something else is missing in the report
            for name, tensor, layout in _tensors(point, output):
                record_at(point.site, _SIDE, name, tensor[: _row_count()], layout)


def _label_input(point: Point, args: Any) -> None:
    if current_rows() is not None and args:
        record_at(point.site, _SIDE, f"{point.name}.input", args[0][: _row_count()], point.input_layout)


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
        yield point.name, first, point.layout
        return
    for (name, _, layout), tensor in zip(
        point.parts, first.split([size for _, size, _ in point.parts], dim=-1), strict=True
    ):
        yield name, tensor, layout


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"aclcmp: {text}\n")

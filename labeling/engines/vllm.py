"""Plug-in of vLLM: in each worker it labels what the model's modules return, with the rows of each forward named.

vLLM calls `register` in all of its processes (entry point group `vllm.general_plugins`). It returns at once unless the
launcher's environment is set. The labels have the names that transformers gives the same tensors.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from aclcmp.labeling.api import is_on
from aclcmp.labeling.engines.module_labels import LastForward, row_numbers, say, watch_points
from aclcmp.labeling.engines.vllm_points import points_of
from aclcmp.labeling.rows import Rows

_MARK = "_aclcmp_watches"


def register() -> None:
    """Let each worker watch its model as soon as that is loaded."""
    if not is_on():
        return
    try:
        from vllm.v1.worker.worker_base import WorkerBase
    except ImportError as error:
        say(f"this version of vLLM has no worker that is known ({error}): nothing of it is labelled")
        return
    if getattr(WorkerBase, _MARK, False):  # the function runs several times in one process
        return
    setattr(WorkerBase, _MARK, True)
    os.environ["VLLM_DISABLE_COMPILE_CACHE"] = "1"  # a graph from the cache has no taps
    initialize = WorkerBase.__init__

    @functools.wraps(initialize)
    def initialize_and_wrap(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        self.load_model = functools.partial(_load_and_watch, self, self.load_model)

    WorkerBase.__init__ = initialize_and_wrap  # platforms have workers of their own: vllm-ascend's NPUWorker


def _load_and_watch(worker: Any, load_model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = load_model(*args, **kwargs)
    try:
        _watch(worker.model_runner, worker.model_runner.get_model())
    except Exception as error:  # a label must not keep the engine from serving
        say(f"the model is not watched: {type(error).__name__}: {error}")
    return result


def _watch(runner: Any, model: Any) -> None:
    """Wrap the forward of a runner, and hook the modules of its model."""
    forward, logits = getattr(runner, "_model_forward", None), getattr(model, "compute_logits", None)
    if forward is None:
        say(f"{type(runner).__name__} has no _model_forward: this version of vLLM is not known, nothing is labelled")
        return
    last, dummy_runs = LastForward("vllm:compute_logits"), list[None]()

    @functools.wraps(forward)
    def forward_with_rows(*args: Any, **kwargs: Any) -> Any:
        with nullcontext() if dummy_runs else _rows_of_batch(runner, last):
            return forward(*args, **kwargs)

    runner._model_forward = forward_with_rows
    if (run_dummy := getattr(runner, "_dummy_run", None)) is not None:  # vllm-ascend's calls _model_forward

        @functools.wraps(run_dummy)
        def run_without_rows(*args: Any, **kwargs: Any) -> Any:
            dummy_runs.append(None)
            try:
                return run_dummy(*args, **kwargs)
            finally:
                dummy_runs.pop()

        runner._dummy_run = run_without_rows
    points = watch_points(points_of(model))
    if logits is not None:

        @functools.wraps(logits)
        def compute_and_label(*args: Any, **kwargs: Any) -> Any:
            found = logits(*args, **kwargs)
            last.label_logits(found)
            return found

        model.compute_logits = compute_and_label
    if points == 0:
        say(f"no module of {type(model).__name__} is known: nothing is labelled")


def _rows_of_batch(runner: Any, last: LastForward) -> Rows:
    """Return the names of the rows that the runner is about to compute."""
    batch = runner.input_batch
    number = batch.num_reqs
    starts = runner.query_start_loc.np[: number + 1].tolist()
    names = [_external_name(name) for name in batch.req_ids[:number]]
    requests = [name for name, begin, end in zip(names, starts, starts[1:], strict=False) for _ in range(end - begin)]
    count = starts[-1]
    positions = row_numbers(runner.positions, count)
    tokens = row_numbers(runner.input_ids, count)
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

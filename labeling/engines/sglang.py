"""Plug-in of SGLang: in each worker it labels what the model's modules return, with the rows of each forward named.

SGLang calls `register` in all of its processes (entry point group `sglang.srt.plugins`). It returns at once unless the
launcher's environment is set. The labels have the names that transformers gives the same tensors. Written against the
source of SGLang 0.5.23.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from aclcmp.labeling.api import is_on
from aclcmp.labeling.engines.module_labels import (
    LastForward,
    collect_labels,
    is_forward_labelled,
    label_output,
    row_numbers,
    say,
    wanted_points,
    watch_points,
)
from aclcmp.labeling.engines.points import Point
from aclcmp.labeling.engines.sglang_points import sglang_points
from aclcmp.labeling.rows import Rows

_EXECUTOR = "sglang.srt.model_executor"
_WATCHED = "_aclcmp_last_forward"
_PROMPTS = "_aclcmp_prompts"
_TEXT_MODES = ("EXTEND", "MIXED", "DECODE")
"""Modes of a forward over the requests' own tokens: not over drafts, nor over none."""


def register() -> None:
    """Let SGLang hook its runner: the model is watched as soon as it is loaded, and each forward names its rows."""
    if not is_on():
        return
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType
    except ImportError as error:
        say(f"this version of SGLang has no hooks that are known ({error}): nothing of it is labelled")
        return
    HookRegistry.register(f"{_EXECUTOR}.model_runner.ModelRunner.load_model", _watch, HookType.AFTER)
    HookRegistry.register(f"{_EXECUTOR}.model_runner.ModelRunner.forward", _run_with_rows, HookType.AROUND)
    HookRegistry.register(f"{_EXECUTOR}.forward_batch_info.ForwardBatch.init_new", _note_prompts, HookType.AFTER)


def _watch(_loaded: Any, runner: Any, *_args: Any, **_kwargs: Any) -> None:
    """Hook the modules of a runner's model; those of a model that only drafts stay as they are."""
    if runner.is_draft_worker or hasattr(runner, _WATCHED):
        return
    try:
        points = list(sglang_points(runner.model))
        wanted = wanted_points(points)
        watch_points(point for point in wanted if not point.residual)
        for point in wanted:
            if point.residual:
                point.module.register_forward_hook(functools.partial(_label_layer, point), with_kwargs=True)
        setattr(runner, _WATCHED, LastForward("sglang:LogitsProcessor"))
        if not points:
            say(f"no module of {type(runner.model).__name__} is known: nothing is labelled")
    except Exception as error:  # a label must not keep the engine from serving
        say(f"the model is not watched: {type(error).__name__}: {error}")


def _run_with_rows(forward: Callable[..., Any], runner: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a forward in which labels refer to the rows of its batch; label its logits."""
    last: LastForward | None = getattr(runner, _WATCHED, None)
    rows = None if last is None else _rows_of_batch(batch, last)
    if last is None or rows is None:
        return forward(runner, batch, *args, **kwargs)
    with rows, collect_labels() as labelled:
        output = forward(runner, batch, *args, **kwargs)
    if (logits := getattr(output, "logits_output", None)) is not None:
        logits.next_token_logits = last.label_logits(getattr(logits, "next_token_logits", None))
    if getattr(output, "can_run_graph", False) and not labelled:
        _say_graph()
    return output


@functools.cache
def _say_graph() -> None:
    say(
        "SGLang replayed a captured graph of which no module was labelled: start it with "
        "--cuda-graph-backend-decode disabled --cuda-graph-backend-prefill disabled"
    )


def _rows_of_batch(batch: Any, last: LastForward) -> Rows | None:
    """Return the names of the rows that a runner is about to compute; None where they are not the requests' tokens."""
    try:
        return _name_rows(batch, last)
    except Exception as error:  # a label must not keep the engine from serving
        say(f"the rows of a forward are not known: {type(error).__name__}: {error}")
        return None


def _name_rows(batch: Any, last: LastForward) -> Rows | None:
    names, mode = batch.rids, batch.forward_mode
    if not names or mode.name not in _TEXT_MODES:  # batches of warm-ups and captures have no names
        return None
    lengths = [1] * len(names)
    if mode.name != "DECODE":
        told = batch.extend_seq_lens_cpu
        lengths = list((batch.extend_seq_lens.tolist() if told is None else told)[: len(names)])
    count = sum(lengths)
    positions, tokens = row_numbers(batch.positions, count), row_numbers(batch.input_ids, count)
    if len(tokens) != count or len(positions) != count:
        raise ValueError(f"{len(tokens)} tokens for requests of {count}")
    ends = [end - 1 for end in itertools.accumulate(lengths)]
    last.requests = list(names)
    last.positions = [positions[end] for end in ends]
    last.tokens = [tokens[end] for end in ends]
    last.prompts = getattr(batch, _PROMPTS, None) or {}
    requests = [name for name, length in zip(names, lengths, strict=True) for _ in range(length)]
    return Rows(requests, positions, tokens, prompts=getattr(batch, _PROMPTS, None))


def _note_prompts(forward_batch: Any, _cls: Any, batch: Any, *_args: Any, **_kwargs: Any) -> None:
    """Note the prompts of a batch's requests: of what the prefix cache holds no row is computed."""
    with suppress(Exception):
        setattr(forward_batch, _PROMPTS, {each.rid: each.origin_input_ids for each in batch.reqs})


def _label_layer(point: Point, _module: Any, args: Any, kwargs: Any, output: Any) -> None:
    """Label what a decoder layer stands for: its output, summed over ranks, and the residual."""
    import torch

    if not is_forward_labelled() or torch.compiler.is_compiling():
        return
    stream = next(_residual_streams((*args, *kwargs.values())), None)
    with suppress(Exception):  # a layer that returns something else is missing in the report
        label_output(point, output if stream is None else stream.snapshot(output))


def _residual_streams(arguments: Any) -> Iterator[Any]:
    """Yield the residual streams of the batches among a layer's arguments."""
    return (each.residual_stream for each in arguments if getattr(each, "residual_stream", None) is not None)

"""Plug-in of vLLM: in each worker it labels what the model's modules return, with the rows of each forward named.

Before, it hashes the weights as they were loaded: between that and the first forward vLLM packs them.

vLLM calls `register` in all of its processes (entry point group `vllm.general_plugins`). It returns at once unless the
launcher's environment is set. The labels have the names that transformers gives the same tensors.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from aclcmp.labeling.api import is_on
from aclcmp.labeling.engines.contexts import Context, Texts
from aclcmp.labeling.engines.kv_cache import KvCache
from aclcmp.labeling.engines.module_labels import (
    ForwardWatch,
    LastForward,
    row_numbers,
    say,
    wanted_points,
    watch_points,
)
from aclcmp.labeling.engines.vllm_cache import block_table_of, kv_cache_of
from aclcmp.labeling.engines.vllm_points import points_of
from aclcmp.labeling.identity import WEIGHTS
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.weights import hash_weights

_MARK = "_aclcmp_watches"
_RAY_PREFIXES = "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY"
"""Variable of vLLM: beginnings of the names of variables that its executor on Ray gives to workers."""


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
    prefixes = filter(None, os.environ.get(_RAY_PREFIXES, "").split(","))
    os.environ[_RAY_PREFIXES] = ",".join(dict.fromkeys([*prefixes, "ACLCMP_"]))
    initialize = WorkerBase.__init__

    @functools.wraps(initialize)
    def initialize_and_wrap(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        self.load_model = functools.partial(_load_and_watch, self, self.load_model)

    WorkerBase.__init__ = initialize_and_wrap  # platforms have workers of their own: vllm-ascend's NPUWorker
    if os.environ.get(WEIGHTS) != "0":
        _hash_before_packing()


def _hash_before_packing() -> None:
    """Hash the weights of a model when they are loaded, before they are packed or quantised."""
    try:
        from vllm.model_executor.model_loader import base_loader

        pack = base_loader.process_weights_after_loading
    except (ImportError, AttributeError) as error:
        say(f"this version of vLLM loads weights in another way ({error}): they are not checked")
        return

    @functools.wraps(pack)
    def hash_and_pack(model: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            hash_weights(model, "acl")
        except Exception as error:  # the engine must go on
            say(f"the weights are not checked: {type(error).__name__}: {error}")
        return pack(model, *args, **kwargs)

    base_loader.process_weights_after_loading = hash_and_pack


def _load_and_watch(worker: Any, load_model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = load_model(*args, **kwargs)
    try:
        _watch(worker.model_runner, worker.model_runner.get_model())
    except Exception as error:  # a label must not keep the engine from serving
        say(f"the model is not watched: {type(error).__name__}: {error}")
    return result


def _watch(runner: Any, model: Any) -> None:
    """Hook the modules of a runner's model, and name the rows of its forwards."""
    points = list(points_of(model))
    if not points:
        say(f"no module of {type(model).__name__} is known: nothing is labelled")
        return
    points = wanted_points(points)
    graphs = _graph_mode(runner)
    forwards = _NamedForwards(ForwardWatch(points, graphs), kv_cache_of(runner, model))
    if hasattr(runner, "_model_forward"):
        _wrap_forward(runner, forwards)
    elif hasattr(runner, "prepare_inputs") and hasattr(runner, "execute_model"):
        _wrap_prepare(runner, forwards)
        model.register_forward_hook(lambda *_: forwards.label_cache())  # what attention reads is told inside alone
    else:
        say(
            f"{type(runner).__name__} has neither _model_forward nor prepare_inputs: "
            "this version of vLLM is not known, nothing is labelled"
        )
        return
    if graphs:
        say(f"the model runs in graphs ({graphs}): modules in them that record nothing are failed labels")
    _warn_of_data_parallel(runner)
    watch_points(points)
    if (compute := getattr(model, "compute_logits", None)) is not None:

        @functools.wraps(compute)
        def compute_and_label(*args: Any, **kwargs: Any) -> Any:
            return forwards.last.label_logits(compute(*args, **kwargs))

        model.compute_logits = compute_and_label


def _wrap_forward(runner: Any, forwards: _NamedForwards) -> None:
    """Name the rows of a V1 runner. Its dummy runs call the model; those of vllm-ascend `_model_forward`."""
    forward, run_dummy, dummy_runs = runner._model_forward, getattr(runner, "_dummy_run", None), list[None]()

    @functools.wraps(forward)
    def forward_with_rows(*args: Any, **kwargs: Any) -> Any:
        with nullcontext() if dummy_runs else forwards.of_batch(partial(_batch_v1, runner)):
            output = forward(*args, **kwargs)
            forwards.label_cache()
            return output

    runner._model_forward = forward_with_rows
    if run_dummy is not None:

        @functools.wraps(run_dummy)
        def run_without_rows(*args: Any, **kwargs: Any) -> Any:
            dummy_runs.append(None)
            try:
                return run_dummy(*args, **kwargs)
            finally:
                dummy_runs.pop()

        runner._dummy_run = run_without_rows


def _wrap_prepare(runner: Any, forwards: _NamedForwards) -> None:
    """Name the rows of a V2 runner from the batch that `prepare_inputs` returns; dummy and profile runs prepare none.

    Its batches are sorted by kind of request, so that only they tell the order of rows.
    """
    prepare, execute = runner.prepare_inputs, runner.execute_model
    prompts: dict[str, Sequence[int]] = {}
    open_forward: list[ExitStack] = []

    @functools.wraps(prepare)
    def prepare_and_name(*args: Any, **kwargs: Any) -> Any:
        batch = prepare(*args, **kwargs)
        if open_forward:
            open_forward[-1].enter_context(forwards.of_batch(partial(_batch_v2, batch, prompts)))
        return batch

    @functools.wraps(execute)
    def execute_with_rows(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        for name in getattr(scheduled, "finished_req_ids", None) or ():
            prompts.pop(name, None)
        for request in getattr(scheduled, "scheduled_new_reqs", None) or ():
            prompts[request.req_id] = request.prompt_token_ids or ()
        with ExitStack() as forward:
            open_forward.append(forward)
            try:
                return execute(scheduled, *args, **kwargs)
            finally:
                open_forward.pop()

    runner.prepare_inputs, runner.execute_model = prepare_and_name, execute_with_rows


def _graph_mode(runner: Any) -> str:
    """Return how a runner's model is compiled or captured, "" where it is neither."""
    compilation = getattr(getattr(runner, "vllm_config", None), "compilation_config", None)
    modes = [
        ("mode", getattr(compilation, "mode", None)),
        ("cudagraph_mode", getattr(compilation, "cudagraph_mode", None)),
    ]
    return ", ".join(
        f"{name} {getattr(mode, 'name', mode)}" for name, mode in modes if getattr(mode, "name", "NONE") != "NONE"
    )


def _warn_of_data_parallel(runner: Any) -> None:
    """Say that engines in data parallel are not told apart where each has a world of its own."""
    import torch.distributed as dist

    parallel = getattr(getattr(runner, "vllm_config", None), "parallel_config", None)
    size = getattr(parallel, "data_parallel_size", 1)
    own = getattr(parallel, "world_size", 1)
    if size > 1 and dist.is_initialized() and dist.get_world_size() == own:
        say(f"{size} engines in data parallel number their ranks from 0 each: start one engine for each run")


@dataclass(frozen=True, slots=True)
class _Batch:
    """The rows of one forward, as a runner has them."""

    requests: Sequence[str]
    starts: Sequence[int]
    """First row of each request, and the end of the last one."""
    positions: Any
    tokens: Any
    prompts: Mapping[str, Sequence[int]]
    logits: Sequence[int]
    """Rows of which logits are computed, in their order."""


def _batch_v1(runner: Any) -> _Batch:
    batch = runner.input_batch
    starts = runner.query_start_loc.np[: batch.num_reqs + 1].tolist()
    prompts = {name: _prompt(runner, name) for name in batch.req_ids[: batch.num_reqs]}
    last = [end - 1 for end in starts[1:]]
    return _Batch(batch.req_ids, starts, runner.positions, runner.input_ids, prompts, last)


def _batch_v2(batch: Any, prompts: Mapping[str, Sequence[int]]) -> _Batch:
    starts = batch.query_start_loc_np[: batch.num_reqs + 1].tolist()
    known = {name: prompts.get(name, ()) for name in batch.req_ids[: batch.num_reqs]}
    return _Batch(batch.req_ids, starts, batch.positions, batch.input_ids, known, batch.logits_indices.tolist())


class _NamedForwards:
    """The forwards of a runner: their rows are named, and what ran in them without a label is told."""

    def __init__(self, watch: ForwardWatch, cache: KvCache | None) -> None:
        self.last = LastForward("vllm:compute_logits")
        self._watch = watch
        self._nameless = False
        self._cache = cache
        self._texts = Texts()
        self._contexts: list[Context] = []
        self._unread = False

    @contextmanager
    def of_batch(self, read_batch: Callable[[], _Batch]) -> Iterator[None]:
        """Name the rows of the forward inside; without names it runs as ever."""
        try:
            rows = self._name_rows(read_batch())
        except Exception as error:
            if not self._nameless:
                say(f"rows of a forward cannot be named, so it is not labelled: {type(error).__name__}: {error}")
            self._nameless = True
            yield
            return
        with rows, self._watch.forward():
            yield
        if self._contexts and not self._unread:
            say("the KV cache is not labelled in forwards that replay a graph of the whole model")
            self._unread = True

    def label_cache(self) -> None:
        """Label what the cache holds behind the forward under way, once."""
        contexts, self._contexts = self._contexts, []
        if self._cache is not None and contexts:
            self._cache.label(contexts, block_table_of)

    def _name_rows(self, batch: _Batch) -> Rows:
        count = batch.starts[-1]
        positions, tokens = row_numbers(batch.positions, count), row_numbers(batch.tokens, count)
        names = [_external_name(name) for name in batch.requests]
        ends = zip(names, batch.starts, batch.starts[1:], strict=False)
        requests = [name for name, begin, end in ends for _ in range(end - begin)]
        prompts = {_external_name(name): prompt for name, prompt in batch.prompts.items()}
        self.last.requests = [requests[row] for row in batch.logits]
        self.last.positions = [positions[row] for row in batch.logits]
        self.last.tokens = [tokens[row] for row in batch.logits]
        self.last.prompts = prompts
        if self._cache is not None:
            self._contexts = self._texts.contexts(names, batch.starts, positions, tokens, prompts)
        return Rows(requests, positions, tokens, prompts=prompts)


def _prompt(runner: Any, request: str) -> Sequence[int]:
    """Return the tokens of a request's prompt: of what the prefix cache holds no row is computed."""
    state = getattr(runner, "requests", {}).get(request)
    return getattr(state, "prompt_token_ids", None) or ()


def _external_name(name: str) -> str:
    """Return the request's name outside of the engine, which appends 8 hexadecimal digits."""
    head, dash, tail = name.rpartition("-")
    return head if dash and len(tail) == 8 and all(digit in "0123456789abcdef" for digit in tail) else name

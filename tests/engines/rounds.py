"""One rank of a vLLM engine that answers the same prompts in several rounds, each with another fault, each a run.

    aclcmp --exec "python rounds.py MODEL FOLDER DTYPE ROUND..." --ranks 3 --no-compare

All rounds use one engine, and the recorder is replaced between them. A round is the name of a fault, or that and what
is kept of tensors: permuted-stats.
"""

import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine_rank import open_engine, record_into, runner_of

# isort: split
import torch
from rounds_text import PROMPTS
from vllm import SamplingParams

from aclcmp.labeling.engines.kv_cache import element_order
from aclcmp.labeling.engines.vllm import register
from aclcmp.labeling.identity import CAPTURE, KV_CACHE, LABELS
from aclcmp.labeling.rows import current_rows

RANK = int(os.environ["RANK"])
SHORTEST = 4
"""Tokens of the shortest prompt."""


@contextmanager
def clean(engine: Any):
    yield


@contextmanager
def rope(engine: Any):
    """Rotate by another base in all layers: one module holds the table."""
    table = engine.model.model.layers[0].self_attn.rotary_emb.cos_sin_cache
    kept, half = table.clone(), table.shape[1] // 2
    angles = torch.arange(len(table))[:, None] * 20_000.0 ** (-torch.arange(half) / half)
    table.copy_(torch.cat([angles.cos(), angles.sin()], dim=1))
    yield
    table.copy_(kept)


@contextmanager
def change_output(module: Any, change: Callable[[torch.Tensor], torch.Tensor]):
    """Change what a linear layer returns, on every rank."""
    inner = module.forward

    def forward(x: torch.Tensor) -> Any:
        output, bias = inner(x)
        return change(output), bias

    module.forward = forward
    yield
    module.forward = inner


def permuted(engine: Any):
    """Rank 1 holds the query rows of layer 1 in another order."""
    module = engine.model.model.layers[1].self_attn.qkv_proj
    size = module.num_heads * module.head_size

    def reverse_queries(output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[..., :size].flip(-1), output[..., size:]], -1) if RANK == 1 else output

    return change_output(module, reverse_queries)


@contextmanager
def at_first_step(engine: Any, change: Callable[[Any, Any], None]):
    """Call `change` with the batch and the context of the first decode step, before it runs."""
    from vllm.forward_context import get_forward_context

    runner, inner = engine.runner, engine.runner.model.forward
    done: list[bool] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        batch = runner.input_batch
        starts = runner.query_start_loc.np[: batch.num_reqs + 1]
        if not done and batch.num_reqs and all(starts[1:] - starts[:-1] == 1):
            change(batch, get_forward_context())
            done.append(True)
        return inner(*args, **kwargs)

    runner.model.forward = forward
    yield
    runner.model.forward = inner
    assert done


def stale(engine: Any):
    """The cached value of position 3 of the long request is lost in layer 2 before the first decode step."""

    def lose(batch: Any, context: Any) -> None:
        cache = context.no_compile_layers["model.layers.2.self_attn.attn"].kv_cache
        block = first_block(batch, by_length(batch)[-1])
        cache.view(cache.shape[0], cache.shape[1], -1)[block, :, -64 * 29 : -64 * 28] = 3.0

    return at_first_step(engine, lose)


def zeroed(engine: Any):
    """Key and value of position 3 of the long request are zero in layer 2 from the first decode step on."""

    def clear(batch: Any, context: Any) -> None:
        layer = context.no_compile_layers["model.layers.2.self_attn.attn"]
        layer.kv_cache[first_block(batch, by_length(batch)[-1])].view(-1)[element_order(layer)[3]] = 0.0

    return at_first_step(engine, clear)


def copied(engine: Any):
    """The first block of the long request lies over that of the second longest in layer 1, in the first decode step."""

    def copy(batch: Any, context: Any) -> None:
        cache = context.no_compile_layers["model.layers.1.self_attn.attn"].kv_cache
        *_, second, first = by_length(batch)
        cache[first_block(batch, second)] = cache[first_block(batch, first)]

    return at_first_step(engine, copy)


def swapped(engine: Any):
    """The two longest requests read each other's first block in the first decode step, in all layers."""

    def swap(batch: Any, context: Any) -> None:
        *_, second, first = by_length(batch)
        for table in {id(each): each.block_table for each in context.attn_metadata.values()}.values():
            table[[second, first], 0] = table[[first, second], 0]

    return at_first_step(engine, swap)


def by_length(batch: Any) -> list[int]:
    """Return the numbers of the requests of a batch, the longest last."""
    return sorted(range(batch.num_reqs), key=lambda number: batch.num_tokens_no_spec[number])


def first_block(batch: Any, request: int) -> int:
    return int(batch.block_table[0].get_cpu_tensor()[request, 0])


@contextmanager
def shifted(engine: Any):
    """Positions are off by one in the first forward after a prefix hit."""
    runner, inner = engine.runner, engine.runner.model.forward
    seen: set[str] = set()

    def forward(*args: Any, **kwargs: Any) -> Any:
        batch, starts = runner.input_batch, runner.query_start_loc.np
        for number, name in enumerate(batch.req_ids[: batch.num_reqs]):
            if name not in seen and batch.num_computed_tokens_cpu[number] > 0:
                positions = kwargs["positions"].clone()
                positions[starts[number] : starts[number + 1]] += 1
                kwargs["positions"] = positions
            seen.add(name)
        return inner(*args, **kwargs)

    runner.model.forward = forward
    yield
    runner.model.forward = inner


def exchanged(engine: Any):
    """Rank 1 has keys and values of layer 1 in each other's places."""
    module = engine.model.model.layers[1].self_attn.qkv_proj
    size = module.num_kv_heads * module.head_size

    def roll_keys(output: torch.Tensor) -> torch.Tensor:
        rolled = output[..., -2 * size :].roll(size, -1)
        return torch.cat([output[..., : -2 * size], rolled], -1) if RANK == 1 else output

    return change_output(module, roll_keys)


def neighbour(engine: Any):
    """Rank 1 computes the slice of rank 2 of the gate and up projections of layer 1."""

    def take_slice(output: torch.Tensor) -> torch.Tensor:
        of_ranks = [torch.empty_like(output) for _ in range(int(os.environ["WORLD_SIZE"]))]
        torch.distributed.all_gather(of_ranks, output.contiguous())
        return of_ranks[2] if RANK == 1 else output

    return change_output(engine.model.model.layers[1].mlp.gate_up_proj, take_slice)


def late(engine: Any):
    """All ranks have a wrong feed-forward part of layer 1 at position 5 of the shortest request, a token of its own."""

    def turn_row(output: torch.Tensor) -> torch.Tensor:
        rows = current_rows()
        if rows is None:
            return output
        named = rows.named
        short = [len(named.prompts.get(name, ())) == SHORTEST for name in named.requests]
        at = [place for place, (request, position, _) in enumerate(named.table) if short[request] and position == 5]
        changed = output.clone()
        changed[at] *= -3.0
        return changed

    return change_output(engine.model.model.layers[1].mlp.down_proj, turn_row)


_ROUNDS = (clean, rope, permuted, stale, shifted, exchanged, neighbour, late)
_OF_CACHE: dict[str, Callable[[Any], Any]] = {"cache": clean, "zeroed": zeroed, "copied": copied, "swapped": swapped}
"""Rounds in which what the cache holds is labelled."""
ROUNDS: dict[str, Callable[[Any], Any]] = {each.__name__: each for each in _ROUNDS} | _OF_CACHE


class Engine:
    """An engine, its runner and its model."""

    def __init__(self, model: str, dtype: str) -> None:
        os.environ[KV_CACHE] = "1"
        register()
        self.llm = open_engine(model, dtype, max_model_len=256)
        self.runner = runner_of(self.llm)
        self.model = self.runner.get_model()

    def round(self, name: str, folder: str) -> None:
        """Answer all prompts, then the first again, whose beginning is in the prefix cache by then; record a run."""
        fault, _, os.environ[CAPTURE] = name.partition("-")
        os.environ[LABELS] = "" if fault in _OF_CACHE else "(?<!_cache)$"
        record_into(Path(folder, name, "shards"))
        self.llm.reset_prefix_cache()
        sampling = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
        with ROUNDS[fault](self):
            for prompts in (PROMPTS, PROMPTS[:1]):
                for output in self.llm.generate(prompts, sampling, use_tqdm=False):
                    print(name, output.request_id, repr(output.outputs[0].text), flush=True)


if __name__ == "__main__":
    model, folder, dtype, *names = sys.argv[1:]
    engine = Engine(model, dtype)
    for name in names:
        engine.round(name, folder)

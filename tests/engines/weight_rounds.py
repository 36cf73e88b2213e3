"""One rank of a vLLM engine whose weights were loaded wrongly: one start of the engine, a run for each fault.

    aclcmp --exec "python weight_rounds.py MODEL FOLDER" --ranks 3 --no-compare

Each fault is planted in the loaded weights, looked at by the plug-in, and mended; before that they are looked at as
they are. All faults together stay in the model that then answers; and again with labels of a script's own, by `watch`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine_rank import open_engine, record_into, runner_of
from watched_golden import TOKENS

# isort: split
import torch
from vllm import SamplingParams
from vllm.model_executor.model_loader import base_loader

from aclcmp import watch
from aclcmp.labeling.engines.vllm import register
from aclcmp.labeling.identity import LABELS
from aclcmp.labeling.weights import hash_weights

RANK = int(os.environ["RANK"])


@contextmanager
def clean(weights: dict[str, torch.Tensor]) -> Iterator[None]:
    yield


@contextmanager
def swapped(weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Rank 1 takes the keys of layer 1 for its values, and the other way round (vllm#42803)."""
    with changed(weights["model.layers.1.self_attn.qkv_proj.weight"]) as weight:
        if RANK == 1:
            weight[192:320] = weight[192:320].roll(64, 0).clone()
        yield


@contextmanager
def half(weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Rank 2 never loads the second half of layer 2's gate_up_proj (sglang#33245)."""
    with changed(weights["model.layers.2.mlp.gate_up_proj.weight"]) as weight:
        if RANK == 2:
            weight[512:] = 0
        yield


@contextmanager
def layer(weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Layer 0's o_proj is that of layer 2."""
    with changed(weights["model.layers.0.self_attn.o_proj.weight"]) as weight:
        weight.copy_(weights["model.layers.2.self_attn.o_proj.weight"])
        yield


@contextmanager
def axis(weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """A scale by output is applied to the inputs of layer 2's down_proj."""
    scale = torch.linspace(0.5, 1.5, 576)
    with changed(weights["model.layers.2.mlp.down_proj.weight"]) as weight:
        weight.mul_(scale[:512])
        yield


FAULTS = {"swapped": swapped, "half": half, "layer": layer, "axis": axis}


@contextmanager
def changed(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    kept = weight.clone()
    yield weight
    weight.copy_(kept)


def play(model: str, folder: str) -> None:
    register()
    look_and_pack = base_loader.process_weights_after_loading

    def rounds(module: Any, *args: Any, **kwargs: Any) -> Any:
        weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
        for name, fault in {"clean": clean, **FAULTS}.items():
            record_into(Path(folder, name, "shards"))
            with fault(weights):
                hash_weights(module, "acl")
        with ExitStack() as faults:  # what is packed is a copy
            for fault in FAULTS.values():
                faults.enter_context(fault(weights))
            record_into(Path(folder, "watched", "shards"))
            hash_weights(module, "acl")
            record_into(Path(folder, "all", "shards"))
            return look_and_pack(module, *args, **kwargs)

    base_loader.process_weights_after_loading = rounds
    llm = open_engine(model, "float32")
    sampling = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    llm.generate(["Once upon a time there was"], sampling, use_tqdm=False)
    os.environ[LABELS] = "qkv_proj|gate_up_proj"  # none of the plug-in's labels
    record_into(Path(folder, "watched", "shards"))
    watch(runner_of(llm).get_model(), "actual")
    llm.generate([{"prompt_token_ids": TOKENS}], SamplingParams(temperature=0.0, max_tokens=1), use_tqdm=False)


if __name__ == "__main__":
    play(*sys.argv[1:])

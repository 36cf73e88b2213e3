"""One rank of vLLM engines of several families, one after the other, each round a run of its own.

    aclcmp --exec "python family_rounds.py MODELS FOLDER ROUND..." --ranks 2 --no-compare

A round is a family; `FAMILY:experts` adds a run with the weights of two experts swapped on this engine's side.
"""

import os
import sys
from pathlib import Path
from typing import Any

from engine_rank import open_engine, record_into, runner_of

# isort: split
from vllm import SamplingParams, TokensPrompt
from vllm.distributed import cleanup_dist_env_and_memory

from aclcmp.labeling.engines.vllm import register
from aclcmp.labeling.identity import KV_CACHE

PROMPTS = [[(7 * place + 3) % 120 + 4 for place in range(40)], [9, 8, 7, 6, 5], [11, 12, 13, 14, 15, 16, 17, 18]]


def swap_experts(model: Any) -> None:
    """Exchange experts 0 and 1 of layer 1; the router stays."""
    for name, weight in model.named_parameters():
        if "layers.1." in name and "experts" in name:
            weight.data[[0, 1]] = weight.data[[1, 0]].clone()


def play(models: Path, folder: Path, family: str, faults: list[str]) -> None:
    """Answer all prompts with one family's model, in chunks, batches and decode steps; then again with each fault."""
    record_into(folder / family / "shards")
    llm = open_engine(str(models / family), "float32", max_model_len=128, skip_tokenizer_init=True)
    sampling = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, detokenize=False)
    for fault in ("", *faults):
        if fault:
            record_into(folder / f"{family}-{fault}" / "shards")
            swap_experts(runner_of(llm).get_model())
            llm.reset_prefix_cache()
        for output in llm.generate([TokensPrompt(prompt_token_ids=each) for each in PROMPTS], sampling, use_tqdm=False):
            print(family, fault, output.request_id, output.outputs[0].token_ids, flush=True)
    del llm
    cleanup_dist_env_and_memory()


if __name__ == "__main__":
    models, folder, *names = sys.argv[1:]
    os.environ[KV_CACHE] = "1"
    register()
    for each in names:
        name, *planted = each.split(":")
        play(Path(models), Path(folder), name, planted)
        os.environ["MASTER_PORT"] = str(
            int(os.environ["MASTER_PORT"]) + 1
        )  # the old store knows addresses that are gone

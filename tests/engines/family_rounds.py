"""One rank of vLLM engines of several families, one after the other, each round a run of its own.

    aclcmp --exec "python family_rounds.py MODELS FOLDER ROUND..." --ranks 2 --no-compare

A round is a family; `FAMILY:experts` adds a run with the weights of two experts swapped on this engine's side.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.distributed import cleanup_dist_env_and_memory

from aclcmp.labeling import api
from aclcmp.labeling.engines.vllm import register
from aclcmp.labeling.identity import SHARD_DIR

PROMPTS = [[(7 * place + 3) % 120 + 4 for place in range(40)], [9, 8, 7, 6, 5], [11, 12, 13, 14, 15, 16, 17, 18]]


def swap_experts(model: Any) -> None:
    """Exchange experts 0 and 1 of layer 1; the router stays."""
    for name, weight in model.named_parameters():
        if "layers.1." in name and "experts" in name:
            weight.data[[0, 1]] = weight.data[[1, 0]].clone()


def record_into(shards: Path) -> None:
    """Begin a run: replace the recorder."""
    if api._recorder is not None:
        api._recorder.close()
        api._recorder = None
    shards.mkdir(parents=True, exist_ok=True)
    os.environ[SHARD_DIR] = str(shards.absolute())


def play(models: Path, folder: Path, family: str, faults: list[str]) -> None:
    """Answer all prompts with one family's model, in chunks, batches and decode steps; then again with each fault."""
    record_into(folder / family / "shards")
    llm = LLM(
        model=str(models / family),
        dtype="float32",
        enforce_eager=True,
        skip_tokenizer_init=True,
        tensor_parallel_size=int(os.environ["WORLD_SIZE"]),
        distributed_executor_backend="external_launcher",
        max_model_len=128,
        max_num_batched_tokens=32,
        max_num_seqs=4,
        block_size=32,
        seed=0,
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, detokenize=False)
    for fault in ("", *faults):
        if fault:
            record_into(folder / f"{family}-{fault}" / "shards")
            swap_experts(llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model())
            llm.reset_prefix_cache()
        for output in llm.generate([TokensPrompt(prompt_token_ids=each) for each in PROMPTS], sampling, use_tqdm=False):
            print(family, fault, output.request_id, output.outputs[0].token_ids, flush=True)
    del llm
    cleanup_dist_env_and_memory()


if __name__ == "__main__":
    models, folder, *names = sys.argv[1:]
    register()
    for each in names:
        name, *planted = each.split(":")
        play(Path(models), Path(folder), name, planted)
        os.environ["MASTER_PORT"] = str(
            int(os.environ["MASTER_PORT"]) + 1
        )  # the old store knows addresses that are gone

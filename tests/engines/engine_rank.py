"""Common parts of the scripts that are one rank of vLLM on a CPU; import it first: it sets the environment of vLLM.

An engine takes a minute to start. So one process records several runs, one after the other.
"""

import os
from pathlib import Path
from typing import Any

from aclcmp.labeling.engines.vllm_run import SETTINGS

os.environ |= SETTINGS
from vllm import LLM

from aclcmp.labeling import api
from aclcmp.labeling.identity import SHARD_DIR


def open_engine(model: str, dtype: str, **options: Any) -> Any:
    """Start an engine whose ranks are the processes of the launcher, with chunks and batches in short prompts."""
    return LLM(
        model=model,
        dtype=dtype,
        enforce_eager=True,
        tensor_parallel_size=int(os.environ["WORLD_SIZE"]),
        distributed_executor_backend="external_launcher",
        max_num_batched_tokens=32,
        max_num_seqs=4,
        block_size=32,
        seed=0,
        **options,
    )


def runner_of(llm: Any) -> Any:
    """Return the runner of this rank, which has the model."""
    return llm.llm_engine.model_executor.driver_worker.worker.model_runner


def record_into(shards: Path) -> None:
    """Begin a run: replace the recorder."""
    if api._recorder is not None:
        api._recorder.close()
        api._recorder = None
    shards.mkdir(parents=True, exist_ok=True)
    os.environ[SHARD_DIR] = str(shards.absolute())

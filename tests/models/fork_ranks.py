"""Start ranks by forking: what takes seconds to import is imported once, for all ranks of all runs.

Each line on stdin is a run as JSON, each line on stdout its exit codes. Every rank runs its script as torchrun would
start it, in a process of its own, and imports aclcmp itself, because aclcmp reads its environment when it is imported.
"""

import json
import multiprocessing
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # read when torch is imported
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads do not survive a fork

# Imported here and used in none of these lines: what a rank would import is there when it is forked.
import h5py  # noqa: F401
import torch.distributed.tensor.parallel  # noqa: F401
import transformers.distributed.mixin
import transformers.distributed.pipeline_parallel
import transformers.models.glm.modeling_glm
import transformers.models.llama.modeling_llama
import transformers.models.mixtral.modeling_mixtral
import transformers.models.qwen3.modeling_qwen3  # noqa: F401
from torch.distributed import fsdp  # noqa: F401

SECONDS = 120
"""What a run may take."""


def be_rank(rank: int, run: dict[str, Any]) -> None:
    """Run the script as one rank; its output goes into the rank's log."""
    log = os.open(run["logs"][rank], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ |= run["environment"][rank]
    sys.argv = [run["script"], *run["arguments"]]
    sys.path.insert(0, str(Path(run["script"]).parent))
    runpy.run_path(run["script"], run_name="__main__")


def main() -> None:
    """Serve runs until stdin ends."""
    fork = multiprocessing.get_context("fork")
    for line in sys.stdin:
        run = json.loads(line)
        ranks = [fork.Process(target=be_rank, args=(rank, run)) for rank in range(len(run["logs"]))]
        for rank in ranks:
            rank.start()
        deadline = time.monotonic() + SECONDS
        while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
            if any(rank.exitcode for rank in ranks):  # the others may wait for it for ever
                deadline = min(deadline, time.monotonic() + 2)
            for rank in ranks:
                rank.join(0.02)
        for rank in ranks:
            rank.kill()
            rank.join()
        print(json.dumps([rank.exitcode for rank in ranks]), flush=True)


main()
